//! Endpoints: the receivers of webhooks. What is posted to them an alerts service posts: the gateway asks one.

use std::time::Duration;

use sightline_bus::{Ask, BusError};
use sightline_catalog::{endpoints, seal::SealError};
use sightline_proto::ids;
use sightline_proto::internal::{
    EndpointRecord, EndpointTestRequest, EndpointTestResponse, RedeliveryRequest,
    RedeliveryResponse,
};
use sightline_proto::reasons::{ApiError, Reason};
use sightline_proto::time::{micros, timestamp};
use sightline_proto::v1::endpoint::State;
use sightline_proto::v1::{self, Endpoint};
use sightline_service::chain;

use super::paging::Position;
use super::violations::{Violations, refused};
use super::{Session, catalog_failed};

/// How long a test may take: longer than an attempt to deliver.
const TEST: Duration = Duration::from_secs(15);
/// How long putting firings in line again may take.
const REDELIVERY: Duration = Duration::from_secs(25);

impl Session {
    /// Endpoints, in the order of their ids.
    pub(crate) fn list_endpoints(
        &self,
        request: &v1::ListEndpointsRequest,
    ) -> Result<v1::ListEndpointsResponse, ApiError> {
        let mut faults = Violations::default();
        let size = faults.page_size(request.page_size);
        faults.into_result()?;
        let now_us = self.clock.now_us();
        let endpoints = self.all::<EndpointRecord>();
        let endpoints = endpoints.map(|record| shown(&record, now_us));
        let pages = self.pages("ListEndpoints", &());
        let (endpoints, next_page_token) =
            pages.cut(endpoints, &request.page_token, size, false, |endpoint| {
                Position::of_id(&endpoint.id)
            })?;
        Ok(v1::ListEndpointsResponse {
            endpoints,
            next_page_token,
        })
    }

    /// The secret that webhooks to an endpoint are signed with.
    pub(crate) async fn endpoint_secret(&self, id: &str) -> Result<String, ApiError> {
        let found = self.find::<EndpointRecord>("endpoint_id", id).await?;
        endpoints::secret(&found.value, &self.seal).map_err(not_opened)
    }

    /// Gives an endpoint a new secret.
    pub(crate) async fn rotate_endpoint_secret(
        &self,
        id: &str,
    ) -> Result<v1::RotateEndpointSecretResponse, ApiError> {
        self.find::<EndpointRecord>("endpoint_id", id).await?;
        let now_us = self.clock.now_us();
        let mut rotated = false;
        let record = self.catalog.modify::<EndpointRecord>(id, |record| {
            rotated = endpoints::rotate(record, &self.seal, now_us);
            rotated
        });
        let record = record.await.map_err(catalog_failed)?;
        if !rotated {
            let allowed = "an endpoint whose old secret has expired: this one was rotated less than a day ago, \
                           GetEndpointSecret returns the new one";
            return Err(refused(Reason::FailedPrecondition, "endpoint_id", allowed));
        }
        Ok(v1::RotateEndpointSecretResponse {
            secret: endpoints::secret(&record, &self.seal).map_err(not_opened)?,
            old_expire_time: Some(timestamp(record.old_expires_us)),
        })
    }

    /// Lets a disabled endpoint be delivered to again.
    pub(crate) async fn enable_endpoint(&self, id: &str) -> Result<Endpoint, ApiError> {
        self.find::<EndpointRecord>("endpoint_id", id).await?;
        let now_us = self.clock.now_us();
        let record = self.catalog.modify::<EndpointRecord>(id, |record| {
            let disabled = !record.disabled.is_empty();
            if disabled {
                record.disabled.clear();
                record.changed_us = now_us;
            }
            disabled
        });
        let record = record.await.map_err(catalog_failed)?;
        Ok(shown(&record, now_us))
    }

    /// Posts a sample to an endpoint.
    pub(crate) async fn test_endpoint(
        &self,
        id: &str,
    ) -> Result<v1::TestEndpointResponse, ApiError> {
        self.find::<EndpointRecord>("endpoint_id", id).await?;
        let question = EndpointTestRequest {
            endpoint_id: id.to_owned(),
        };
        let asked = self.bus.ask(Ask::EndpointTest, &question, TEST).await;
        let answer: EndpointTestResponse = asked.map_err(unanswered)?;
        Ok(v1::TestEndpointResponse {
            status_code: answer.status_code,
            error: answer.error,
            duration_ms: answer.duration_us as f64 / 1000.0,
        })
    }

    /// Delivers firings once more.
    pub(crate) async fn redeliver(
        &self,
        request: v1::RedeliverRequest,
    ) -> Result<v1::RedeliverResponse, ApiError> {
        let question = self.redelivery(&request)?;
        let alert = self.alert(&request.alert_id).await?;
        if alert.callback_url.is_empty() {
            let allowed = "an alert with a callback_url: this one posts nowhere";
            return Err(refused(Reason::FailedPrecondition, "alert_id", allowed));
        }
        let asked = self.bus.ask(Ask::Redelivery, &question, REDELIVERY).await;
        let answer: RedeliveryResponse = asked.map_err(unanswered)?;
        if !answer.error.is_empty() {
            tracing::warn!(error = answer.error, "firings are not delivered once more");
            let message = format!(
                "{} firings were put in line, others could not be; try again shortly",
                answer.count
            );
            return Err(ApiError::new(Reason::Unavailable, message));
        }
        if answer.count == 0 && !request.firing_id.is_empty() {
            let allowed = "the id of a firing of this alert, of the last 72 hours";
            return Err(refused(Reason::NotFound, "firing_id", allowed));
        }
        let count = answer.count;
        Ok(v1::RedeliverResponse { count })
    }

    fn redelivery(&self, request: &v1::RedeliverRequest) -> Result<RedeliveryRequest, ApiError> {
        let mut faults = Violations::default();
        if request.firing_id.is_empty() == request.start_time.is_none() {
            faults.add("firing_id", "either this or start_time");
        }
        let now_us = self.clock.now_us();
        let start_us = request.start_time.as_ref().map_or(0, micros);
        let end_us = request.end_time.as_ref().map_or(now_us, micros);
        if request.start_time.is_some() && end_us <= start_us {
            faults.add("end_time", "after start_time, or unset for up to now");
        }
        faults.into_result()?;
        Ok(RedeliveryRequest {
            alert_id: request.alert_id.clone(),
            firing_id: request.firing_id.clone(),
            start_us,
            end_us,
        })
    }

    /// Makes the endpoint that an alert posts to, so that its secret is there before the first webhook.
    pub(super) async fn make_endpoint(&self, url: &str) -> Result<(), ApiError> {
        if url.is_empty() {
            return Ok(());
        }
        let now_us = self.clock.now_us();
        let tenant = self.tenant();
        let made = endpoints::ensure(&self.catalog, &self.seal, &tenant, url, now_us).await;
        made.map(|_| ()).map_err(catalog_failed)
    }
}

fn shown(record: &EndpointRecord, now_us: i64) -> Endpoint {
    let state = if record.disabled.is_empty() {
        State::Enabled
    } else {
        State::Disabled
    };
    let expires_us = record.old_expires_us;
    Endpoint {
        id: ids::endpoint_id(&record.tenant, &record.url),
        url: record.url.clone(),
        state: state.into(),
        detail: record.disabled.clone(),
        change_time: (record.changed_us != 0).then(|| timestamp(record.changed_us)),
        create_time: Some(timestamp(record.created_us)),
        old_expire_time: (now_us < expires_us).then(|| timestamp(expires_us)),
    }
}

fn not_opened(error: SealError) -> ApiError {
    tracing::error!(error = chain(&error), "a secret does not open");
    let message =
        "the secret cannot be read: the server's seal.key is another one than when it was made";
    ApiError::new(Reason::Internal, message)
}

fn unanswered(error: BusError) -> ApiError {
    tracing::warn!(error = chain(&error), "no alerts service answered");
    let message = "no alerts service answered; try again shortly";
    ApiError::new(Reason::Unavailable, message)
}
