//! Alerts: an event on an index, and whom to tell.

use sightline_proto::internal::AlertRecord;
use sightline_proto::reasons::{ApiError, Reason};
use sightline_proto::time::timestamp;
use sightline_proto::v1::alert::State;
use sightline_proto::v1::{self, Alert, DeliveryMode, Severity};

use super::events::is_built_in;
use super::paging::Position;
use super::violations::{Violations, refused};
use super::{Session, callback, catalog_failed};

pub(super) use super::alert_checks::{check_policy, check_threshold};
use super::alert_checks::{check_sinks, check_template, check_time, one_of};

impl Session {
    /// Creates an alert, enabled.
    pub(crate) async fn create_alert(
        &self,
        request: v1::CreateAlertRequest,
    ) -> Result<Alert, ApiError> {
        let mut faults = Violations::default();
        let threshold = request.threshold.unwrap_or(self.config.default_threshold);
        check_threshold(&mut faults, threshold);
        check_policy(&mut faults, request.policy.as_ref());
        let severity = severity(&mut faults, request.severity);
        let delivery = delivery(&mut faults, request.delivery);
        check_time(&mut faults, "mute_time", request.mute_time.as_ref());
        check_sinks(&mut faults, &request.sinks, &self.config.sinks);
        check_template(&mut faults, &request.template);
        let request_id = faults.request_id(&request.request_id);
        faults.into_result()?;
        self.get_event(&request.event_id).await?;
        let rtstream_id = self.watched(&request).await?;
        self.check_callback(&request.callback_url)?;
        self.make_endpoint(&request.callback_url).await?;
        let record = self
            .create_once(request_id, &request, |id| AlertRecord {
                alert: Some(Alert {
                    id: id.to_owned(),
                    event_id: request.event_id.clone(),
                    index_id: request.index_id.clone(),
                    rtstream_id,
                    callback_url: request.callback_url.clone(),
                    state: State::Enabled.into(),
                    threshold,
                    create_time: Some(timestamp(self.clock.now_us())),
                    policy: request.policy.clone(),
                    severity: severity.into(),
                    delivery: delivery.into(),
                    mute_time: request.mute_time,
                    sinks: request.sinks.clone(),
                    template: request.template.clone(),
                }),
                tenant: self.tenant(),
            })
            .await?;
        Ok(alert_of(&record))
    }

    /// The stream that an alert is to watch: its index's, or for events of a stream's health the one that is named.
    async fn watched(&self, request: &v1::CreateAlertRequest) -> Result<String, ApiError> {
        let invalid = |field, allowed| Err(refused(Reason::InvalidArgument, field, allowed));
        if !is_built_in(&request.event_id) {
            let rtstream_id = self.index(&request.index_id).await?.rtstream_id;
            if !request.rtstream_id.is_empty() && request.rtstream_id != rtstream_id {
                return invalid("rtstream_id", "the stream of the index, or nothing");
            }
            return Ok(rtstream_id);
        }
        if !request.index_id.is_empty() {
            let allowed =
                "nothing for an event of a stream's health: name the stream in rtstream_id";
            return invalid("index_id", allowed);
        }
        self.stream(&request.rtstream_id).await?;
        Ok(request.rtstream_id.clone())
    }

    /// One alert.
    pub(crate) async fn alert(&self, id: &str) -> Result<Alert, ApiError> {
        let found = self.find::<AlertRecord>("alert_id", id).await?;
        Ok(alert_of(&found.value))
    }

    /// Alerts, oldest first.
    pub(crate) async fn list_alerts(
        &self,
        request: v1::ListAlertsRequest,
    ) -> Result<v1::ListAlertsResponse, ApiError> {
        let mut faults = Violations::default();
        let size = faults.page_size(request.page_size);
        faults.into_result()?;
        if !request.index_id.is_empty() {
            self.index(&request.index_id).await?;
        }
        if !request.rtstream_id.is_empty() {
            self.stream(&request.rtstream_id).await?;
        }
        if !request.event_id.is_empty() {
            self.get_event(&request.event_id).await?;
        }
        let pages = self.pages(
            "ListAlerts",
            &v1::ListAlertsRequest {
                page_size: 0,
                page_token: String::new(),
                ..request.clone()
            },
        );
        let any = |asked: &str, has: &str| asked.is_empty() || asked == has;
        let alerts = self
            .all::<AlertRecord>()
            .map(|record| alert_of(&record))
            .filter(|alert| any(&request.index_id, &alert.index_id))
            .filter(|alert| any(&request.rtstream_id, &alert.rtstream_id))
            .filter(|alert| any(&request.event_id, &alert.event_id));
        let (alerts, next_page_token) =
            pages.cut(alerts, &request.page_token, size, false, |alert| {
                Position::of_id(&alert.id)
            })?;
        Ok(v1::ListAlertsResponse {
            alerts,
            next_page_token,
        })
    }

    /// Enables or disables an alert.
    pub(crate) async fn set_alert_state(&self, id: &str, state: State) -> Result<Alert, ApiError> {
        self.change_alert(id, |alert| alert.set_state(state)).await
    }

    /// Changes where an alert posts, when it fires, and what its receivers are told.
    pub(crate) async fn update_alert(
        &self,
        request: v1::UpdateAlertRequest,
    ) -> Result<Alert, ApiError> {
        let mut faults = Violations::default();
        if let Some(threshold) = request.threshold {
            check_threshold(&mut faults, threshold);
        }
        check_policy(&mut faults, request.policy.as_ref());
        let severity = request.severity.map(|it| severity(&mut faults, it));
        let delivery = request.delivery.map(|it| delivery(&mut faults, it));
        check_time(&mut faults, "mute_time", request.mute_time.as_ref());
        check_sinks(&mut faults, &request.sinks, &self.config.sinks);
        if !request.set_sinks && !request.sinks.is_empty() {
            faults.add(
                "sinks",
                "nothing unless set_sinks says that they are replaced",
            );
        }
        check_template(&mut faults, request.template.as_deref().unwrap_or_default());
        faults.into_result()?;
        // Before the URL is looked at: what it says of the policy is for those who may change the alert.
        self.alert(&request.alert_id).await?;
        if let Some(url) = &request.callback_url {
            self.check_callback(url)?;
            self.make_endpoint(url).await?;
        }
        self.change_alert(&request.alert_id, |alert| {
            set(&mut alert.callback_url, request.callback_url.as_ref());
            set(&mut alert.threshold, request.threshold.as_ref());
            set(&mut alert.template, request.template.as_ref());
            set(
                &mut alert.sinks,
                request.set_sinks.then_some(&request.sinks),
            );
            set(&mut alert.severity, severity.map(i32::from).as_ref());
            set(&mut alert.delivery, delivery.map(i32::from).as_ref());
            if request.policy.is_some() {
                alert.policy.clone_from(&request.policy);
            }
            if request.mute_time.is_some() {
                alert.mute_time = request.mute_time;
            }
        })
        .await
    }

    /// Deletes an alert.
    pub(crate) async fn delete_alert(&self, id: &str) -> Result<(), ApiError> {
        self.alert(id).await?;
        let removed = self.remove::<AlertRecord>(id).await;
        removed.map_err(catalog_failed)
    }

    async fn change_alert(&self, id: &str, change: impl Fn(&mut Alert)) -> Result<Alert, ApiError> {
        self.alert(id).await?;
        let record = self
            .catalog
            .modify::<AlertRecord>(id, |record| {
                let Some(alert) = record.alert.as_mut() else {
                    return false;
                };
                let before = alert.clone();
                change(alert);
                *alert != before
            })
            .await
            .map_err(catalog_failed)?;
        Ok(alert_of(&record))
    }

    /// Without a URL firings are seen by Watch and by ListFirings alone.
    fn check_callback(&self, url: &str) -> Result<(), ApiError> {
        if url.is_empty() {
            return Ok(());
        }
        callback::check(url, &self.config.egress)
    }
}

/// What is given replaces what is there.
fn set<T: Clone>(there: &mut T, given: Option<&T>) {
    if let Some(given) = given {
        there.clone_from(given);
    }
}

fn severity(faults: &mut Violations, given: i32) -> Severity {
    match one_of(faults, "severity", given) {
        Severity::Unspecified => Severity::Warning,
        severity => severity,
    }
}

fn delivery(faults: &mut Violations, given: i32) -> DeliveryMode {
    match one_of(faults, "delivery", given) {
        DeliveryMode::Unspecified => DeliveryMode::Complete,
        mode => mode,
    }
}

fn alert_of(record: &AlertRecord) -> Alert {
    record.alert.clone().unwrap_or_default()
}
