//! The one table of routes: the server dispatches by it, `/help` prints it, the audit log names its handlers.

use crate::handlers::{Call, Pending, cluster, entry, map, network};

/// A path and what it does.
pub(crate) struct Route {
    /// The path, exactly; one that ends in `/<name>` takes any name there.
    pub(crate) path: &'static str,
    /// The handler as the audit log names it (`spec/diag-api.md` 1.7).
    pub(crate) name: &'static str,
    /// What it does, in the audit log's words.
    pub(crate) action: &'static str,
    /// Whether the audit log has a line before it, and the parameters at debug level.
    pub(crate) announced: bool,
    /// Whether the audit log has the answer.
    pub(crate) response_logged: bool,
    /// Parameters without which it is not done.
    pub(crate) required: &'static [&'static str],
    /// How to call it: what follows the path.
    pub(crate) usage: &'static str,
    /// Does it.
    pub(crate) handler: fn(Call) -> Pending,
}

/// What a path leads to.
pub(crate) enum Target {
    /// A route, and what follows its path.
    Route(&'static Route, String),
    /// The clean form of a path with empty, `.` or `..` elements.
    Redirect(String),
    /// Nothing.
    NotImplemented,
}

impl Route {
    /// A route without required parameters, that the audit log announces and whose answer it leaves out.
    const fn new(path: &'static str, name: &'static str, action: &'static str, handler: fn(Call) -> Pending) -> Route {
        Route {
            path,
            name,
            action,
            announced: true,
            response_logged: false,
            required: &[],
            usage: "",
            handler,
        }
    }
}

/// Where a route's path takes any name.
const NAME: &str = "<name>";

/// All routes, by path. `/` is not among them: it answers as an unknown path does.
static ROUTES: &[Route] = &[
    Route {
        response_logged: true,
        ..Route::new("/clusterpeers", "dbClusterPeers", "cluster peers", |call| {
            Box::pin(cluster::peers(call))
        })
    },
    Route {
        required: &["tname", "nid", "key", "value"],
        usage: "?tname=table_name&nid=network_id&key=k&value=v",
        ..Route::new("/createentry", "dbCreateEntry", "create entry", |call| {
            Box::pin(entry::create(call))
        })
    },
    Route {
        required: &["tname", "nid", "key"],
        usage: "?tname=table_name&nid=network_id&key=k",
        ..Route::new("/deleteentry", "dbDeleteEntry", "delete entry", |call| {
            Box::pin(entry::delete(call))
        })
    },
    Route {
        response_logged: true,
        required: &["tname", "nid", "key"],
        usage: "?tname=table_name&nid=network_id&key=k",
        ..Route::new("/getentry", "dbGetEntry", "get entry", |call| {
            Box::pin(entry::get(call))
        })
    },
    Route {
        response_logged: true,
        required: &["tname", "nid"],
        usage: "?tname=table_name&nid=network_id",
        ..Route::new("/gettable", "dbGetTable", "get table", |call| {
            Box::pin(entry::table(call))
        })
    },
    Route {
        announced: false,
        ..Route::new("/help", "help", "help", |call| Box::pin(cluster::help(call)))
    },
    Route {
        required: &["members"],
        usage: "?members=ip1,ip2,...",
        ..Route::new("/join", "dbJoin", "join cluster", |call| Box::pin(cluster::join(call)))
    },
    Route {
        required: &["nid"],
        usage: "?nid=network_id",
        ..Route::new("/joinnetwork", "dbJoinNetwork", "join network", |call| {
            Box::pin(network::join(call))
        })
    },
    Route {
        required: &["members"],
        usage: "?members=ip1,ip2,...",
        ..Route::new("/leave", "dbLeave", "leave cluster", |call| {
            Box::pin(cluster::leave(call))
        })
    },
    Route {
        required: &["nid"],
        usage: "?nid=network_id",
        ..Route::new("/leavenetwork", "dbLeaveNetwork", "leave network", |call| {
            Box::pin(network::leave(call))
        })
    },
    Route::new("/maps", "maps", "maps", |call| Box::pin(map::list(call))),
    Route::new("/maps/<name>", "map", "map", |call| Box::pin(map::show(call))),
    Route {
        response_logged: true,
        required: &["nid"],
        usage: "?nid=test",
        ..Route::new("/networkpeers", "dbPeers", "network peers", |call| {
            Box::pin(network::peers(call))
        })
    },
    Route {
        response_logged: true,
        required: &["nid"],
        usage: "?nid=test",
        ..Route::new("/networkstats", "dbNetworkStats", "network stats", |call| {
            Box::pin(network::stats(call))
        })
    },
    Route {
        announced: false,
        ..Route::new("/ready", "ready", "ready", |call| Box::pin(cluster::ready(call)))
    },
    Route {
        required: &["tname", "nid", "key", "value"],
        usage: "?tname=table_name&nid=network_id&key=k&value=v",
        ..Route::new("/updateentry", "dbUpdateEntry", "update entry", |call| {
            Box::pin(entry::update(call))
        })
    },
];

/// What a decoded path leads to.
pub(crate) fn find(path: &str) -> Target {
    let clean = clean(path);
    if clean != path {
        return Target::Redirect(clean);
    }
    ROUTES
        .iter()
        .find_map(|route| match route.path.strip_suffix(NAME) {
            Some(prefix) => path
                .strip_prefix(prefix)
                .filter(|rest| !rest.is_empty())
                .map(|rest| (route, rest)),
            None => (route.path == path).then_some((route, "")),
        })
        .map_or(Target::NotImplemented, |(route, rest)| {
            Target::Route(route, rest.to_owned())
        })
}

/// The paths there are, sorted, a line each.
pub(crate) fn help() -> String {
    let paths = std::iter::once("/").chain(ROUTES.iter().map(|route| route.path));
    paths.fold(String::new(), |text, path| text + path + "\n")
}

/// The path without empty, `.` and `..` elements; a slash at its end stays.
fn clean(path: &str) -> String {
    let mut elements: Vec<&str> = Vec::new();
    for element in path.split('/') {
        match element {
            "" | "." => {}
            ".." => {
                elements.pop();
            }
            _ => elements.push(element),
        }
    }
    let slash_at_end = path.ends_with('/') && !elements.is_empty();
    format!("/{}{}", elements.join("/"), if slash_at_end { "/" } else { "" })
}

#[cfg(test)]
mod tests;
