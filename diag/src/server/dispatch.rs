//! One request: parameters, route, audit log, reply. Methods do not matter and every reply is HTTP 200, as in Docker.

use super::{Ask, COMPONENT};
use crate::forms::{Form, escape, unescape};
use crate::handlers::{Call, Outcome};
use crate::reply::{Details, Format, Reply};
use crate::routes::{self, Route, Target};
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use hyper::body::Incoming;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

/// Bytes of a body: a value in base64, as large as gossip carries it many times over.
const MAX_BODY_BYTES: usize = 1024 * 1024;

/// How long a client may take to send a body.
const BODY_TIME_LIMIT: Duration = Duration::from_secs(30);

/// Bytes of an answer that go to the log: a few hundred rows. Docker logs all; a large table would fill the disk.
const MAX_LOGGED_BYTES: usize = 64 * 1024;

/// The characters of a path that stay as they are in a `Location`.
const PATH_CHARACTERS: &[u8] = b"/$&+,:;=@";

/// Answers a request.
pub(super) async fn answer(
    ask: Ask,
    remote: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let raw_path = head.uri.path().as_bytes();
    let path = unescape(raw_path, false).unwrap_or_else(|| raw_path.to_vec());
    let path = String::from_utf8_lossy(&path).into_owned();
    let target = match routes::find(&path) {
        Target::Redirect(to) => return Ok(redirect(&to, head.uri.query(), &head.method)),
        Target::Route(route, rest) => Some((route, rest)),
        Target::NotImplemented => None,
    };
    let query = head.uri.query().unwrap_or_default().as_bytes();
    let (reply, format) = match read_body(&head.method, &head.headers, body).await {
        Ok(body) => {
            let form = Form::new(&body, query);
            let format = Format::of(&form);
            let audit = Audit { remote, uri: &head.uri };
            let reply = match target {
                Some((route, rest)) => {
                    call(
                        route,
                        Call {
                            ask,
                            form,
                            format,
                            rest,
                        },
                        &path,
                        &audit,
                    )
                    .await
                }
                None => {
                    audit.info("notImplemented", "command not implemented done");
                    Reply::not_implemented(&path)
                }
            };
            (reply, format)
        }
        Err(error) => (Reply::fail(error), Format::of(&Form::new(b"", query))),
    };
    let (body, content_type) = reply.render(format);
    let mut response = Response::new(Body::from(body));
    set_header(&mut response, header::CONTENT_TYPE, content_type);
    Ok(response)
}

/// Runs a route's handler, unless a parameter is missing.
async fn call(route: &Route, call: Call, path: &str, audit: &Audit<'_>) -> Reply {
    let Route { name, action, .. } = *route;
    if route.announced {
        audit.info(name, action);
        call.form.debug_lines().for_each(|line| audit.debug(name, &line));
    }
    if !route.required.iter().all(|parameter| call.form.has(parameter)) {
        audit.error(name, &format!("{action} failed, wrong input"), None);
        return Reply::missing_parameter(format!("{path}{}", route.usage));
    }
    let format = call.format;
    let outcome: Outcome = (route.handler)(call).await;
    match outcome {
        Ok(details) => {
            let message = format!("{action} done");
            if route.response_logged {
                audit.response(name, &message, &details, format);
            } else {
                audit.info(name, &message);
            }
            Reply::ok(details)
        }
        Err(error) => {
            audit.error(name, &format!("{action} failed"), Some(&error));
            Reply::fail(error)
        }
    }
}

/// The body, if it is one that carries parameters; else nothing.
async fn read_body(method: &Method, headers: &header::HeaderMap, body: Incoming) -> Result<Vec<u8>, String> {
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    let has_parameters = [Method::POST, Method::PUT, Method::PATCH].contains(method)
        && media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded");
    if !has_parameters {
        return Ok(Vec::new());
    }
    match tokio::time::timeout(BODY_TIME_LIMIT, axum::body::to_bytes(Body::new(body), MAX_BODY_BYTES)).await {
        Ok(Ok(bytes)) => Ok(bytes.to_vec()),
        Ok(Err(_)) => Err(format!(
            "the request body is cut short or larger than {MAX_BODY_BYTES} bytes"
        )),
        Err(_) => Err(format!(
            "the request body did not arrive within {} s",
            BODY_TIME_LIMIT.as_secs()
        )),
    }
}

/// To the clean form of the path: 307, as Docker 29 (`spec/diag-api.md` 1.2).
fn redirect(path: &str, query: Option<&str>, method: &Method) -> Response<Body> {
    let query = query.map_or_else(String::new, |query| format!("?{query}"));
    let location = escape(path.as_bytes(), PATH_CHARACTERS) + &query;
    let body = if *method == Method::GET {
        format!("<a href=\"{}\">Temporary Redirect</a>.\n\n", escape_html(&location))
    } else {
        String::new()
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    set_header(&mut response, header::CONTENT_TYPE, "text/html; charset=utf-8");
    set_header(&mut response, header::LOCATION, &location);
    response
}

fn escape_html(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&#34;")
        .replace('\'', "&#39;")
}

/// Sets a header whose value is visible ASCII: anything else is left out.
fn set_header(response: &mut Response<Body>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// Who did what: a line in the log for every request.
struct Audit<'a> {
    remote: SocketAddr,
    uri: &'a Uri,
}

impl Audit<'_> {
    fn url(&self) -> &str {
        self.uri.path_and_query().map_or("/", |url| url.as_str())
    }

    fn debug(&self, method: &str, message: &str) {
        tracing::debug!(component = COMPONENT, remoteIP = %self.remote, method, url = self.url(), "{message}");
    }

    fn info(&self, method: &str, message: &str) {
        tracing::info!(component = COMPONENT, remoteIP = %self.remote, method, url = self.url(), "{message}");
    }

    fn response(&self, method: &str, message: &str, details: &Details, format: Format) {
        let response = details.text(format);
        let response = String::from_utf8_lossy(&response[..response.len().min(MAX_LOGGED_BYTES)]);
        tracing::info!(
            component = COMPONENT,
            remoteIP = %self.remote,
            method,
            url = self.url(),
            response = &*response,
            "{message}"
        );
    }

    fn error(&self, method: &str, message: &str, error: Option<&str>) {
        tracing::error!(component = COMPONENT, remoteIP = %self.remote, method, url = self.url(), error, "{message}");
    }
}
