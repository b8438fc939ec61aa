//! Rendered pages of a shop, cached over HTTP.
//!
//! | request | what it does |
//! | --- | --- |
//! | `GET /products/{id}`, `GET /categories/{name}` | a page; `x-cache`: `hit`, `stale` or `miss` |
//! | `PUT /products/{id}` | changes a product, and makes every page that shows it stale |
//! | `POST /purge?tag=...` | makes the pages of a tag stale; with `&hard=true` it removes them |
//! | `GET /metrics` | all figures, for Prometheus |
//!
//! A page has a tag for each product on it, so a change of one product reaches every page that
//! shows it, whatever these are. A stale page is answered at once and rendered anew in a task:
//! every visitor sees the old price until that is done. Where nobody may, the change removes the
//! pages instead (`invalidate_tags`).

use std::collections::BTreeMap;
use std::fmt;
use std::future::IntoFuture;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::{Json, Path, Query, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Deserialize;
use tamis::{
    BlobCache, BlobCacheHit, BlobCacheMetrics, BlobCacheNamespace, BlobCachePolicy, BlobCachePut,
    CacheError, CacheTier, FetchError, FetchPolicy,
};
use tokio::net::TcpListener;

use crate::with_grace;

/// The namespace of the cache.
const PAGES: &str = "pages";

/// A page that nobody changes is rendered again after so long, and may be answered for so long
/// after that while it is.
const FRESH: Duration = Duration::from_secs(60);
const STALE: Duration = Duration::from_secs(600);

/// The origin takes so long for a page.
const RENDERING: Duration = Duration::from_millis(50);

/// What a page shows of a product.
#[derive(Clone, Debug, Deserialize)]
pub struct Product {
    name: String,
    category: String,
    price: u32,
}

/// The origin: its products, and how many pages it has rendered.
#[derive(Debug, Default)]
struct Shop {
    products: Mutex<BTreeMap<u32, Product>>,
    rendered: Mutex<u64>,
}

/// No such product or category.
#[derive(Debug)]
struct NotThere;

impl fmt::Display for NotThere {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("there is none")
    }
}

impl Shop {
    fn find(&self, is_shown: impl Fn(u32, &Product) -> bool) -> Vec<(u32, Product)> {
        let products = self.products.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = products.iter().filter(|(id, product)| is_shown(**id, product));
        shown.map(|(id, product)| (*id, product.clone())).collect()
    }

    /// A page that shows these products, and is tagged with them.
    async fn render(
        &self,
        title: &str,
        is_shown: impl Fn(u32, &Product) -> bool,
    ) -> Result<BlobCachePut, NotThere> {
        // Read before it renders: what is changed meanwhile makes this page stale as well, since
        // the cache does not store a page as fresh that was begun before an invalidation.
        let shown = self.find(is_shown);
        tokio::time::sleep(RENDERING).await;
        *self.rendered.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        if shown.is_empty() {
            return Err(NotThere);
        }
        let rows = shown.iter().map(|(id, product)| {
            format!("<li><a href=\"/products/{id}\">{}</a> {}</li>", product.name, product.price)
        });
        let page = format!("<h1>{title}</h1><ul>{}</ul>\n", rows.collect::<String>());
        let tags = shown.iter().map(|(id, _)| tag_of(*id));
        Ok(BlobCachePut::from(page)
            .with_content_metadata([("content-type", "text/html; charset=utf-8")])
            .with_tags(tags))
    }
}

fn tag_of(id: u32) -> String {
    format!("product:{id}")
}

/// The state of all handlers.
#[derive(Clone)]
struct Service {
    shop: Arc<Shop>,
    pages: BlobCacheNamespace,
    exporter: PrometheusHandle,
    metrics: Arc<BlobCacheMetrics>,
}

/// The routes of the service.
///
/// # Errors
///
/// [`CacheError::InvalidConfig`] if the cache has no spawner.
pub fn router(cache: &BlobCache, exporter: PrometheusHandle) -> Result<Router, CacheError> {
    // Whoever waits for a page waits for so long at most, and a failing origin is asked once in a
    // second and not by every visitor.
    let fetching = FetchPolicy::default()
        .hard_timeout(Duration::from_secs(5))
        .retry_after(Duration::from_secs(1))
        .refresh_ahead(0.1);
    let pages = cache
        .namespace(PAGES)
        .with_policy(BlobCachePolicy::default().ttl(FRESH).stale_serve(STALE).jitter_pct(10))
        .with_fetch_policy(fetching)?;
    let metrics = Arc::new(BlobCacheMetrics::new(cache, "pages").with_namespaces([PAGES]));
    let service = Service { shop: Arc::default(), pages, exporter, metrics };
    Ok(Router::new()
        .route("/products/{id}", get(product).put(change))
        .route("/categories/{name}", get(category))
        .route("/purge", post(purge))
        .route("/rendered", get(rendered))
        .route("/metrics", get(figures))
        .route("/healthz", get(|| async { "ok\n" }))
        .with_state(service))
}

/// Serves until `stop` ends, then answers the calls that have begun, for ten seconds at most.
///
/// # Errors
///
/// Those of the listener.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let (stop, out_of_patience) = with_grace(stop);
    tokio::select! {
        served = axum::serve(listener, router).with_graceful_shutdown(stop).into_future() => served,
        () = out_of_patience => Ok(()),
    }
}

async fn product(State(service): State<Service>, Path(id): Path<u32>) -> Result<Response, Refused> {
    let shop = Arc::clone(&service.shop);
    let render = move || async move { shop.render("Product", |it, _| it == id).await };
    let page = service.pages.get_or_refresh_spawned(format!("product/{id}"), render).await?;
    Ok(answer(&page))
}

async fn category(
    State(service): State<Service>,
    Path(name): Path<String>,
) -> Result<Response, Refused> {
    let (shop, key) = (Arc::clone(&service.shop), format!("category/{name}"));
    let render =
        move || async move { shop.render(&name, |_, product| product.category == name).await };
    let page = service.pages.get_or_refresh_spawned(key, render).await?;
    Ok(answer(&page))
}

/// The page, and where it came from.
fn answer(page: &BlobCacheHit) -> Response {
    let cache = match page.tier() {
        CacheTier::Fetched => "miss",
        _ if page.is_stale() => "stale",
        _ => "hit",
    };
    #[allow(clippy::disallowed_methods, reason = "the age is that by the clock of the machine")]
    let age = SystemTime::now().duration_since(page.written_at()).unwrap_or_default();
    let content_type = page.content_metadata().get("content-type").cloned().unwrap_or_default();
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::AGE, age.as_secs().to_string()),
        (HeaderName::from_static("x-cache"), cache.to_owned()),
    ];
    // The bytes are shared with the cache, not copied.
    (headers, page.bytes()).into_response()
}

async fn change(
    State(service): State<Service>,
    Path(id): Path<u32>,
    Json(product): Json<Product>,
) -> Result<StatusCode, Refused> {
    // In a task, since the change must reach all pages though the client goes away.
    let changing = tokio::spawn(async move {
        // Pages that may have no tag of it: that of the category it comes to, and its own, if it
        // was asked for too early.
        let untagged = [format!("category/{}", product.category), format!("product/{id}")];
        service.shop.products.lock().unwrap_or_else(PoisonError::into_inner).insert(id, product);
        // After the change, so that no page that shows what was before is fresh from now on.
        let mut changed = service.pages.expire_tags(&[tag_of(id)]).await.map(drop);
        for key in untagged {
            changed = changed.and(service.pages.expire_key(key).await.map(drop));
        }
        changed
    });
    changing
        .await
        .map_err(|error| Refused(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))??;
    Ok(StatusCode::NO_CONTENT)
}

/// What to purge, and how.
#[derive(Deserialize)]
struct Purge {
    tag: String,
    #[serde(default)]
    hard: bool,
}

async fn purge(
    State(service): State<Service>,
    Query(Purge { tag, hard }): Query<Purge>,
) -> Result<String, Refused> {
    let purged = match hard {
        true => service.pages.invalidate_tags(&[tag]).await?,
        false => service.pages.expire_tags(&[tag]).await?,
    };
    Ok(format!("{purged}\n"))
}

async fn rendered(State(service): State<Service>) -> String {
    let rendered = *service.shop.rendered.lock().unwrap_or_else(PoisonError::into_inner);
    format!("{rendered}\n")
}

async fn figures(State(service): State<Service>) -> String {
    service.metrics.publish();
    service.exporter.render()
}

/// What a client is told if there is no page, or no purge.
struct Refused(StatusCode, String);

impl From<FetchError<NotThere>> for Refused {
    fn from(error: FetchError<NotThere>) -> Self {
        match error {
            FetchError::Fetch(none) => Self(StatusCode::NOT_FOUND, format!("{none}\n")),
            FetchError::TimedOut => {
                Self(StatusCode::GATEWAY_TIMEOUT, "the origin is slow\n".to_owned())
            }
            other => Self(StatusCode::BAD_GATEWAY, format!("{other}\n")),
        }
    }
}

impl From<CacheError> for Refused {
    fn from(error: CacheError) -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n"))
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, self.1).into_response()
    }
}
