//! From a request to its answer: finds the route, checks the caller's role, calls the handler.

use http::{Request, Response};
use hyper::body::Incoming;
use keelson_http::reply::Body;
use keelson_http::route::{Admitted, recorded};
use keelson_http::{Caller, Failure};
use keelson_model::error::ErrorKind;

use crate::routes::ROUTES;
use crate::state::{Handler, HostApi};

/// A request and the handler that answers it, or the reason why none does.
pub struct RoutedHostRequest {
    api: HostApi,
    found: Result<(Admitted<Handler>, Request<Incoming>), Failure>,
}

impl HostApi {
    /// Finds the route of a request and checks whether the caller may use it.
    pub fn route(&self, request: Request<Incoming>, caller: &Caller) -> RoutedHostRequest {
        RoutedHostRequest {
            api: self.clone(),
            found: find(request, caller),
        }
    }
}

fn find(
    request: Request<Incoming>,
    caller: &Caller,
) -> Result<(Admitted<Handler>, Request<Incoming>), Failure> {
    let (method, path) = (request.method(), request.uri().path());
    let Some(found) = ROUTES.find(method, path, 0) else {
        return Err(Failure::new(
            ErrorKind::NotFound,
            format!("the host API has no {method} {path}"),
        ));
    };
    let admitted = found.admit(caller, &request, path)?;
    Ok((admitted, request))
}

impl RoutedHostRequest {
    /// Answers the request.
    pub async fn answer(self) -> Response<Body> {
        let (Admitted { handler, record }, request) = match self.found {
            Ok(found) => found,
            Err(failure) => return failure.into_response(),
        };
        recorded(record, async {
            let answer = handler(&self.api, request).await;
            answer.unwrap_or_else(Failure::into_response)
        })
        .await
    }
}
