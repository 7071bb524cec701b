//! The rooms of one house and the doors between them. Everything that tells local from remote is
//! [`Doors`]; everything that tells rooms apart is the one `match` in [`House::answer`].

use std::sync::{Arc, Weak};

use tracing::Instrument;

use crate::backend::door::{Boxed, Caller, Deadline, PeerError, Peers, Rooms};
use crate::backend::message::{Answer, Party, Refusal, Request, ResultCode};
use crate::config::{Config, Role};
use crate::fns::Fns;
use crate::hns::Hns;
use crate::js::Js;
use crate::lorawan::ids::JoinEuiRange;
use crate::lorawan::{DevAddr, JoinEui, NetId};
use crate::sns::Sns;

/// The names this house answers to.
#[derive(Debug, Clone, Default)]
pub struct Ours {
    /// As a network server; the first is the one we speak as.
    pub net_ids: Vec<NetId>,
    /// As a join server.
    pub join_euis: Vec<JoinEuiRange>,
    /// As a join server for everybody: a node that does not roam and lists no JoinEUI.
    pub every_join_eui: bool,
    /// Of join servers of others that know devices of ours.
    pub elsewhere: Vec<JoinEuiRange>,
}

impl Ours {
    /// What the configuration says.
    pub fn of(config: &Config) -> Ours {
        let join_euis = config.join_server.join_euis.clone();
        Ours {
            net_ids: config.network.net_ids.all().to_vec(),
            every_join_eui: join_euis.is_empty()
                && !config.roaming.roams()
                && config.network.roles.has(Role::Js),
            join_euis,
            elsewhere: config
                .join_server
                .elsewhere
                .iter()
                .flat_map(|server| server.join_euis.clone())
                .collect(),
        }
    }

    /// Whether our join server answers for a JoinEUI.
    pub fn serves(&self, join_eui: JoinEui) -> bool {
        let among = |ranges: &[JoinEuiRange]| ranges.iter().any(|range| range.contains(join_eui));
        !among(&self.elsewhere) && (self.every_join_eui || among(&self.join_euis))
    }

    /// Whether a party lives here.
    pub fn contains(&self, party: &Party) -> bool {
        match party {
            Party::Ns(net_id) => self.net_ids.contains(net_id),
            Party::Js(join_eui) => self.serves(*join_eui),
            Party::As(_) => false,
        }
    }
}

/// All rooms.
pub struct House {
    /// Forwarding.
    pub fns: Arc<Fns>,
    /// Serving.
    pub sns: Arc<Sns>,
    /// Home.
    pub hns: Arc<Hns>,
    /// Join server.
    pub js: Arc<Js>,
}

impl Rooms for House {
    fn answer(self: Arc<Self>, from: Caller, request: Request) -> Boxed<'static, Result<Answer, Refusal>> {
        Box::pin(async move {
            match request {
                Request::HomeNs(req) => self.js.home_ns(from, req).await.map(Answer::HomeNs),
                Request::Join(req) => self.js.join(from, req).await.map(Answer::Join),
                Request::Rejoin(req) => self.js.rejoin(from, req).await.map(Answer::Join),
                Request::AppSKey(req) => self.js.app_s_key(from, req).await.map(Answer::AppSKey),
                Request::Profile(req) => self.hns.profile(from, req).await.map(Answer::Profile),
                Request::HrRegain(req) => self.sns.regain(from, req).await.map(Answer::HrRegain),
                Request::HrStart(req) => self.hns.handover_start(from, req).await.map(Answer::HrStart),
                Request::PrStart(req) => self.sns.passive_start(from, req).await.map(Answer::PrStart),
                Request::XmitDown(req) => self.fns.downlink(from, req).await.map(Answer::Xmit),
                Request::XmitAppUp(req) => self.hns.uplink(from, req).await.map(Answer::Xmit),
                Request::XmitAppDown(req) => self.sns.downlink(from, req).await.map(Answer::Xmit),
                Request::XmitUp(req) => self.sns.passive_data(from, req).await.map(Answer::Xmit),
                // whose device it is decides: they hand theirs over to us, or we ours to them
                Request::HrStop(req) => {
                    let over = match self.sns.handover_stop(from.clone(), req.clone()).await {
                        Err(refusal) if refusal.code == ResultCode::UnknownDevEui && !from.ours => {
                            self.hns.stopped(from.clone(), req.clone()).await
                        }
                        answer => answer,
                    };
                    self.fns.handover_over(&from, &req, over.is_ok()).await;
                    over.map(Answer::HrStop)
                }
                // by whom it is sent says whom it is for: their devices visit us, or ours visit them
                Request::PrStop(req) => match self.fns.stop(from.clone(), req.clone()).await {
                    Err(refusal) if refusal.code == ResultCode::UnknownDevEui => {
                        self.sns.stop(from, req).await
                    }
                    answer => answer,
                }
                .map(Answer::PrStop),
            }
        })
    }
}

/// The doors of the house, as its rooms see them.
pub struct Doors {
    ours: Ours,
    /// The rooms hold the doors, so the doors must not hold the rooms.
    house: Weak<House>,
    /// `backend::client`, or a closed door where nobody can be asked.
    outside: Arc<dyn Peers>,
}

impl Doors {
    /// `house` may still be under construction.
    pub fn new(ours: Ours, house: Weak<House>, outside: Arc<dyn Peers>) -> Doors {
        Doors { ours, house, outside }
    }
}

impl Peers for Doors {
    fn networks(&self, addr: DevAddr, by: Deadline) -> Boxed<'_, Vec<NetId>> {
        self.outside.networks(addr, by)
    }

    fn notify(&self, to: Party, transaction: u32, outcome: Result<(), Refusal>) {
        if !self.ours.contains(&to) {
            self.outside.notify(to, transaction, outcome);
        }
    }

    fn send(&self, to: Party, request: Request, by: Deadline) -> Boxed<'_, Result<Answer, PeerError>> {
        if !self.ours.contains(&to) {
            return self.outside.send(to, request, by);
        }
        // a device of our JoinEUI may have moved to a join server elsewhere, which the DNS knows
        let may_have_moved = matches!((&to, &request), (Party::Js(_), Request::HomeNs(_)));
        let elsewhere = may_have_moved.then(|| (to.clone(), request.clone()));
        let here = self.inside(to, request, by);
        Box::pin(async move {
            match (here.await, elsewhere) {
                (Err(error), Some((to, request))) if error.is(ResultCode::UnknownDevEui) => {
                    self.outside.send(to, request, by).await.map_err(|_| error)
                }
                (answer, _) => answer,
            }
        })
    }
}

impl Doors {
    /// Ask a room of this house.
    fn inside(&self, to: Party, request: Request, by: Deadline) -> Boxed<'static, Result<Answer, PeerError>> {
        let me = self.ours.net_ids.first().copied().map(Party::Ns);
        let (Some(house), Some(party)) = (self.house.upgrade(), me) else {
            let why = "the house is shutting down".to_string();
            return Box::pin(std::future::ready(Err(PeerError::Transport { to, why })));
        };
        Box::pin(async move {
            let span = tracing::info_span!(target: "roamgate::door", "door", MessageType = request.message_type(),
                SenderID = %party, ReceiverID = %to, local = true, ResultCode = tracing::field::Empty);
            let from = Caller { party, receiver: to.clone(), ours: true, by };
            // A task of its own: the asker may give up, the work goes on to its end.
            let work = tokio::spawn(house.answer(from, request).instrument(span.clone()));
            let answer = match tokio::time::timeout_at(by.0, work).await {
                Ok(Ok(answer)) => answer.map_err(|refusal| PeerError::Refused { to: to.clone(), refusal }),
                Ok(Err(_panicked)) => Err(PeerError::Confused { to, why: "the room failed".into() }),
                Err(_elapsed) => Err(PeerError::Late { to }),
            };
            record(&span, &answer);
            answer
        })
    }
}

/// Write the outcome into the span of a door.
pub fn record(span: &tracing::Span, answer: &Result<Answer, PeerError>) {
    match answer {
        Ok(_) => span.record("ResultCode", "Success"),
        Err(PeerError::Refused { refusal, .. }) => {
            span.record("ResultCode", tracing::field::display(refusal))
        }
        Err(error) => span.record("ResultCode", tracing::field::display(error)),
    };
}
