//! Events and alerts over gRPC.

use futures::StreamExt;
use futures::stream::BoxStream;
use sightline_proto::v1;
use sightline_proto::v1::alert::State;
use sightline_proto::v1::event_service_server::EventService;
use tonic::{Request, Status};

use super::{Answer, Grpc, answer, session};

#[tonic::async_trait]
impl EventService for Grpc {
    async fn create_event(
        &self,
        request: Request<v1::CreateEventRequest>,
    ) -> Answer<v1::CreateEventResponse> {
        let session = session(&request)?;
        let event = Some(session.create_event(request.into_inner()).await?);
        answer(v1::CreateEventResponse { event })
    }

    async fn get_event(
        &self,
        request: Request<v1::GetEventRequest>,
    ) -> Answer<v1::GetEventResponse> {
        let session = session(&request)?;
        let request = request.into_inner();
        let event = Some(session.get_event(&request.event_id).await?);
        answer(v1::GetEventResponse { event })
    }

    async fn list_events(
        &self,
        request: Request<v1::ListEventsRequest>,
    ) -> Answer<v1::ListEventsResponse> {
        let session = session(&request)?;
        answer(session.list_events(request.get_ref())?)
    }

    async fn update_event(
        &self,
        request: Request<v1::UpdateEventRequest>,
    ) -> Answer<v1::UpdateEventResponse> {
        let session = session(&request)?;
        let event = Some(session.update_event(request.into_inner()).await?);
        answer(v1::UpdateEventResponse { event })
    }

    async fn delete_event(
        &self,
        request: Request<v1::DeleteEventRequest>,
    ) -> Answer<v1::DeleteEventResponse> {
        let session = session(&request)?;
        let request = request.into_inner();
        session.delete_event(&request.event_id).await?;
        answer(v1::DeleteEventResponse {})
    }

    async fn create_alert(
        &self,
        request: Request<v1::CreateAlertRequest>,
    ) -> Answer<v1::CreateAlertResponse> {
        let session = session(&request)?;
        let alert = Some(session.create_alert(request.into_inner()).await?);
        answer(v1::CreateAlertResponse { alert })
    }

    async fn get_alert(
        &self,
        request: Request<v1::GetAlertRequest>,
    ) -> Answer<v1::GetAlertResponse> {
        let session = session(&request)?;
        let request = request.into_inner();
        let alert = Some(session.alert(&request.alert_id).await?);
        answer(v1::GetAlertResponse { alert })
    }

    async fn list_alerts(
        &self,
        request: Request<v1::ListAlertsRequest>,
    ) -> Answer<v1::ListAlertsResponse> {
        let session = session(&request)?;
        answer(session.list_alerts(request.into_inner()).await?)
    }

    async fn enable_alert(
        &self,
        request: Request<v1::EnableAlertRequest>,
    ) -> Answer<v1::EnableAlertResponse> {
        let session = session(&request)?;
        let request = request.into_inner();
        let alert = Some(
            session
                .set_alert_state(&request.alert_id, State::Enabled)
                .await?,
        );
        answer(v1::EnableAlertResponse { alert })
    }

    async fn disable_alert(
        &self,
        request: Request<v1::DisableAlertRequest>,
    ) -> Answer<v1::DisableAlertResponse> {
        let session = session(&request)?;
        let request = request.into_inner();
        let alert = Some(
            session
                .set_alert_state(&request.alert_id, State::Disabled)
                .await?,
        );
        answer(v1::DisableAlertResponse { alert })
    }

    async fn update_alert(
        &self,
        request: Request<v1::UpdateAlertRequest>,
    ) -> Answer<v1::UpdateAlertResponse> {
        let session = session(&request)?;
        let alert = Some(session.update_alert(request.into_inner()).await?);
        answer(v1::UpdateAlertResponse { alert })
    }

    async fn delete_alert(
        &self,
        request: Request<v1::DeleteAlertRequest>,
    ) -> Answer<v1::DeleteAlertResponse> {
        let session = session(&request)?;
        let request = request.into_inner();
        session.delete_alert(&request.alert_id).await?;
        answer(v1::DeleteAlertResponse {})
    }

    async fn list_firings(
        &self,
        request: Request<v1::ListFiringsRequest>,
    ) -> Answer<v1::ListFiringsResponse> {
        let session = session(&request)?;
        answer(session.list_firings(request.into_inner()).await?)
    }

    async fn list_deliveries(
        &self,
        request: Request<v1::ListDeliveriesRequest>,
    ) -> Answer<v1::ListDeliveriesResponse> {
        let session = session(&request)?;
        answer(session.list_deliveries(request.into_inner()).await?)
    }

    async fn redeliver(
        &self,
        request: Request<v1::RedeliverRequest>,
    ) -> Answer<v1::RedeliverResponse> {
        let session = session(&request)?;
        answer(session.redeliver(request.into_inner()).await?)
    }

    type BacktestStream = BoxStream<'static, Result<v1::BacktestResponse, Status>>;

    async fn backtest(
        &self,
        request: Request<v1::BacktestRequest>,
    ) -> Answer<Self::BacktestStream> {
        let backtest = session(&request)?.backtest(request.into_inner()).await?;
        let responses = backtest.map(|response| response.map_err(Status::from));
        answer(responses.boxed())
    }

    async fn get_latency(
        &self,
        request: Request<v1::GetLatencyRequest>,
    ) -> Answer<v1::GetLatencyResponse> {
        let session = session(&request)?;
        answer(session.latency(request.get_ref()).await?)
    }
}
