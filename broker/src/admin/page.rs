//! The page at `/`: plain files, part of the binary. No build step made them, and nothing of them
//! comes from elsewhere.
//!
//! Its policy lets a browser run and load only what this broker serves, so that a container's name,
//! which anybody may choose who starts one, is never more than a text. Files are asked for again each
//! time and answered with 304 while they are the same: a page never mixes two versions.

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// What a browser may do with the page: run our scripts, take our styles, ask this broker; be in
/// nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; manifest-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file of the page.
struct Asset {
    name: &'static str,
    kind: &'static str,
    bytes: &'static [u8],
}

macro_rules! asset {
    ($name:literal, $kind:expr) => {
        Asset { name: $name, kind: $kind, bytes: include_bytes!(concat!("page/", $name)) }
    };
}

const INDEX: Asset = asset!("index.html", HTML);

const ASSETS: [Asset; 24] = [
    asset!("style.css", CSS),
    asset!("views.css", CSS),
    asset!("icon.svg", SVG),
    asset!("alerts.js", SCRIPT),
    asset!("api.js", SCRIPT),
    asset!("chart.js", SCRIPT),
    asset!("cluster.js", SCRIPT),
    asset!("columns.js", SCRIPT),
    asset!("container.js", SCRIPT),
    asset!("dom.js", SCRIPT),
    asset!("events.js", SCRIPT),
    asset!("format.js", SCRIPT),
    asset!("hosts.js", SCRIPT),
    asset!("main.js", SCRIPT),
    asset!("overview.js", SCRIPT),
    asset!("reload.js", SCRIPT),
    asset!("scale.js", SCRIPT),
    asset!("spark.js", SCRIPT),
    asset!("state.js", SCRIPT),
    asset!("store.js", SCRIPT),
    asset!("stream.js", SCRIPT),
    asset!("table.js", SCRIPT),
    asset!("theme.js", SCRIPT),
    asset!("topics.js", SCRIPT),
];

pub(super) fn routes() -> Router {
    Router::new().route("/", get(index)).route("/page/{name}", get(asset))
}

async fn index(headers: HeaderMap) -> Response {
    INDEX.answer(&headers)
}

async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Response {
    match ASSETS.iter().find(|asset| asset.name == name) {
        Some(asset) => asset.answer(&headers),
        None => (StatusCode::NOT_FOUND, "the page has no such file\n").into_response(),
    }
}

impl Asset {
    fn answer(&self, asked: &HeaderMap) -> Response {
        let tag = format!("\"{:08x}-{}\"", crc32c::crc32c(self.bytes), self.bytes.len());
        let known = asked.get(header::IF_NONE_MATCH).and_then(|known| known.to_str().ok());
        let is_known = known.is_some_and(|known| known.contains(&tag));
        let headers = [
            (header::CONTENT_TYPE, self.kind),
            (header::CACHE_CONTROL, "no-cache"),
            (header::ETAG, &tag),
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
            (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        ];
        if is_known {
            return (StatusCode::NOT_MODIFIED, headers).into_response();
        }
        (headers, self.bytes).into_response()
    }
}
