use super::*;

#[test]
fn the_table_is_sorted_and_complete() {
    assert!(ROUTES.is_sorted_by_key(|route| route.path));
    assert!(
        ROUTES
            .iter()
            .all(|route| !route.name.is_empty() && !route.action.is_empty())
    );
    assert!(
        ROUTES
            .iter()
            .all(|route| route.required.is_empty() == route.usage.is_empty())
    );
}

#[test]
fn help_names_the_routes_of_docker_29_and_our_own() {
    let expected = "/ /clusterpeers /createentry /deleteentry /getentry /gettable /help /join /joinnetwork /leave \
                    /leavenetwork /maps /maps/<name> /networkpeers /networkstats /ready /updateentry";
    assert_eq!(help().lines().collect::<Vec<_>>().join(" "), expected);
    assert!(help().ends_with('\n'));
}

#[test]
fn paths_are_cleaned_as_by_go() {
    for (path, expected) in [
        ("/", "/"),
        ("", "/"),
        ("//", "/"),
        ("//ready", "/ready"),
        ("/ready/", "/ready/"),
        ("/a/../ready", "/ready"),
        ("/../../ready", "/ready"),
        ("/./ready/.", "/ready"),
        ("*", "/*"),
    ] {
        assert_eq!(clean(path), expected, "{path:?}");
    }
}

#[test]
fn only_exact_paths_match() {
    let found = |path: &str| match find(path) {
        Target::Route(route, rest) => format!("{} {rest}", route.path),
        Target::Redirect(to) => format!("redirect {to}"),
        Target::NotImplemented => "none".to_owned(),
    };
    assert_eq!(found("/join"), "/join ");
    assert_eq!(found("/maps/peers"), "/maps/<name> peers");
    assert_eq!(found("//join"), "redirect /join");
    for path in ["/", "/join/", "/Join", "/joi", "/maps/", "/stackdump"] {
        assert_eq!(found(path), "none", "{path}");
    }
}
