//! The calls.

use std::collections::HashSet;

use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use weir_store::Role;

use super::convert::{profile, status};
use super::proto::profile_service_server::ProfileService;
use super::proto::{
    BatchGetProfilesRequest, BatchGetProfilesResponse, GetProfileRequest, GetProfileResponse,
    SetUserProvidedNameRequest, SetUserProvidedNameResponse, WatchProfileRequest, WatchProfileResponse,
};
use crate::api::App;
use crate::auth::Caller;
use crate::problem::Problem;
use crate::profiles::{UserId, user_provided};

/// Ids of one call at most.
const MOST: usize = 1000;

/// Answers the calls.
pub(crate) struct Service {
    app: App,
}

impl Service {
    pub(super) fn new(app: App) -> Self {
        Self { app }
    }
}

#[tonic::async_trait]
impl ProfileService for Service {
    type WatchProfileStream = ReceiverStream<Result<WatchProfileResponse, Status>>;

    async fn get_profile(&self, request: Request<GetProfileRequest>) -> Result<Response<GetProfileResponse>, Status> {
        admit(&request, Role::Read)?;
        let user_id = user_id(&request.into_inner().user_id)?;
        let found = self.app.profiles.get(user_id.as_str()).await.map_err(|error| status(&error.into()))?;
        let found = found.ok_or_else(|| Status::not_found("this user id was never seen"))?;
        Ok(Response::new(GetProfileResponse { profile: Some(profile(found)) }))
    }

    async fn batch_get_profiles(
        &self,
        request: Request<BatchGetProfilesRequest>,
    ) -> Result<Response<BatchGetProfilesResponse>, Status> {
        admit(&request, Role::Read)?;
        let user_ids = request.into_inner().user_ids;
        if !(1..=MOST).contains(&user_ids.len()) {
            let message = format!("user_ids has {} items, and not 1 to {MOST}", user_ids.len());
            return Err(Status::invalid_argument(message));
        }
        let ids: Vec<UserId> = user_ids.iter().map(|id| self::user_id(id)).collect::<Result<_, _>>()?;
        let mut seen = HashSet::new();
        let ids: Vec<&str> = ids.iter().map(UserId::as_str).filter(|id| seen.insert(*id)).collect();
        let mut found = self.app.profiles.get_many(&ids).await.map_err(|error| status(&error.into()))?;
        let mut answer = BatchGetProfilesResponse::default();
        for id in ids {
            match found.remove(id) {
                Some(found) => answer.profiles.push(profile(found)),
                None => answer.not_found.push(id.to_owned()),
            }
        }
        Ok(Response::new(answer))
    }

    async fn set_user_provided_name(
        &self,
        request: Request<SetUserProvidedNameRequest>,
    ) -> Result<Response<SetUserProvidedNameResponse>, Status> {
        let caller = admit(&request, Role::Write)?;
        tracing::info!(caller = &*caller.name, call = "SetUserProvidedName", "a change is asked for");
        let SetUserProvidedNameRequest { user_id, name } = request.into_inner();
        let id = self::user_id(&user_id)?;
        let change = user_provided(id, &caller.name, name).map_err(|problem| status(&problem))?;
        let changed = self.app.profiles.change(&[change]).await.map_err(|error| status(&error.into()))?;
        let changed = changed.into_values().next().map(profile);
        Ok(Response::new(SetUserProvidedNameResponse { profile: changed }))
    }

    async fn watch_profile(
        &self,
        request: Request<WatchProfileRequest>,
    ) -> Result<Response<Self::WatchProfileStream>, Status> {
        admit(&request, Role::Read)?;
        let WatchProfileRequest { user_id, after_revision } = request.into_inner();
        let id = self::user_id(&user_id)?;
        let stream = self.app.watches.begin(id.as_str(), after_revision).await?;
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// Who calls, if they may. Who they are was found out before.
fn admit<T>(request: &Request<T>, needs: Role) -> Result<Caller, Status> {
    let caller = request.extensions().get::<Caller>().cloned().ok_or_else(|| status(&Problem::Internal))?;
    if caller.role < needs { Err(status(&Problem::Forbidden { needs })) } else { Ok(caller) }
}

fn user_id(text: &str) -> Result<UserId, Status> {
    UserId::parse(text).map_err(|reason| status(&Problem::invalid("user_id", reason)))
}
