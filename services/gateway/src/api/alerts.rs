//! Alerts: an event on an index, and whom to tell.

use sightline_proto::internal::{AlertRecord, EventRecord};
use sightline_proto::reasons::ApiError;
use sightline_proto::time::timestamp;
use sightline_proto::v1::alert::State;
use sightline_proto::v1::{self, Alert, Policy};

use super::paging::Position;
use super::violations::Violations;
use super::{Session, callback, catalog_failed};

/// How many windows a policy may look back at.
const MAX_WINDOWS: u32 = 20;
const MAX_COOLDOWN_S: i64 = 24 * 3600;

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
        let request_id = faults.request_id(&request.request_id);
        faults.into_result()?;
        self.find::<EventRecord>("event_id", &request.event_id)
            .await?;
        let index = self.index(&request.index_id).await?;
        self.check_callback(&request.callback_url)?;
        self.make_endpoint(&request.callback_url).await?;
        let record = self
            .create_once(request_id, &request, |id| AlertRecord {
                alert: Some(Alert {
                    id: id.to_owned(),
                    event_id: request.event_id.clone(),
                    index_id: request.index_id.clone(),
                    rtstream_id: index.rtstream_id,
                    callback_url: request.callback_url.clone(),
                    state: State::Enabled.into(),
                    threshold,
                    create_time: Some(timestamp(self.clock.now_us())),
                    policy: request.policy.clone(),
                    ..Alert::default()
                }),
                tenant: self.tenant(),
            })
            .await?;
        Ok(alert_of(&record))
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

    /// Changes where an alert posts, or when it fires.
    pub(crate) async fn update_alert(
        &self,
        request: v1::UpdateAlertRequest,
    ) -> Result<Alert, ApiError> {
        let mut faults = Violations::default();
        if let Some(threshold) = request.threshold {
            check_threshold(&mut faults, threshold);
        }
        check_policy(&mut faults, request.policy.as_ref());
        faults.into_result()?;
        // Before the URL is looked at: what it says of the policy is for those who may change the alert.
        self.alert(&request.alert_id).await?;
        if let Some(url) = &request.callback_url {
            self.check_callback(url)?;
            self.make_endpoint(url).await?;
        }
        self.change_alert(&request.alert_id, |alert| {
            if let Some(url) = &request.callback_url {
                alert.callback_url.clone_from(url);
            }
            if let Some(threshold) = request.threshold {
                alert.threshold = threshold;
            }
            if let Some(policy) = &request.policy {
                alert.policy = Some(policy.clone());
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

pub(super) fn check_threshold(faults: &mut Violations, threshold: f32) {
    if !(threshold > 0.0 && threshold <= 1.0) {
        let allowed = format!("above 0 and at most 1, or unset; got {threshold}");
        faults.add("threshold", allowed);
    }
}

pub(super) fn check_policy(faults: &mut Violations, policy: Option<&Policy>) {
    let Some(policy) = policy else { return };
    let of = policy.of.max(1);
    if policy.of > MAX_WINDOWS {
        let allowed = format!("1 to {MAX_WINDOWS}, or 0 for 1; got {of}");
        faults.add("policy.of", allowed);
    }
    if policy.required > of {
        let got = policy.required;
        faults.add(
            "policy.required",
            format!("at most policy.of, {of}; got {got}"),
        );
    }
    if policy.close_after > MAX_WINDOWS {
        let got = policy.close_after;
        let allowed = format!("1 to {MAX_WINDOWS}, or 0 for 1; got {got}");
        faults.add("policy.close_after", allowed);
    }
    let cooldown = policy.cooldown.unwrap_or_default();
    let whole = (0..1_000_000_000).contains(&cooldown.nanos);
    if !(0..=MAX_COOLDOWN_S).contains(&cooldown.seconds) || !whole {
        faults.add("policy.cooldown", "0 to 24 hours");
    }
}

fn alert_of(record: &AlertRecord) -> Alert {
    record.alert.clone().unwrap_or_default()
}
