//! Uplinks of visitors whose home has granted a context (TS002 12.6.1): XmitDataReq in the place of PRStartReq. And how
//! contexts begin, are renewed, and end.

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use crate::backend::door::{Deadline, PeerError, StoreError};
use crate::backend::message::{Party, PrStartAns, ResultCode, UlMeta, XmitUp};
use crate::lorawan::frame::{DataFrame, Uplink};
use crate::lorawan::{DevAddr, DevEui, NetId};
use crate::partners::{Partner, Quirk};
use crate::usage::Way;

use super::activate::Unanswered;
use super::contexts::{self, Context, ContextId, Fitting, NoContext, Stage};
use super::parked::is_away;
use super::{Fns, Numbered, lock};

/// Contexts read at once.
const PAGE: usize = 1_000;

/// What came of a frame's contexts.
pub(super) enum ByContext {
    /// A home took it.
    Taken(PrStartAns, NetId),
    /// None did. These networks have said no, or see a forgery; what the last one said.
    Open {
        /// Not to be asked about this frame again.
        asked: Vec<NetId>,
        /// Why, where anybody was asked.
        last: Option<Unanswered>,
    },
}

impl Fns {
    /// Read the contexts of earlier runs, and the frames that wait for their home. Contexts that our rules no longer allow
    /// end; the sNS hears of it.
    pub async fn recall(&self) -> Result<(), StoreError> {
        let allowed = |id: &ContextId| {
            let ours = self.ours.iter().any(|ours| ours.covers(id.dev_addr));
            !ours && self.partners.agreement(id.net_id).passive.any()
        };
        let mut after = None;
        loop {
            let page = self.contexts.page(after, PAGE).await?;
            let Some(last) = page.last().copied() else { break };
            after = Some(last);
            let mut book = self.book();
            for id in page {
                book.added(id);
                if !allowed(&id) {
                    book.shut(id);
                }
            }
        }
        self.recall_limits().await?;
        self.recall_parked().await
    }

    /// What has to be done now and then: contexts that have ended go, and so do those that the agreement of today
    /// does not allow, with a PRStopReq to their home.
    pub async fn tend_contexts(&self) -> Result<(), StoreError> {
        let shut = self.book().take_shut();
        self.forget(shut.clone()).await?;
        for id in shut {
            tracing::info!(DevEUI = %id.dev_eui, DevAddr = %id.dev_addr, NetID = %id.net_id,
                rule = self.partners.agreement(id.net_id).line, "a roaming context is not allowed any more");
            self.part(id).await;
        }
        // a clock that nobody has set ends nothing
        while self.clock.is_trusted() {
            let over = self.contexts.over(self.clock.unix(), PAGE).await?;
            let is_last = over.len() < PAGE;
            self.forget(over).await?;
            if is_last {
                break;
            }
        }
        Ok(())
    }

    /// A data frame whose address has contexts (12.6.1). Its own home is the one whose key fits, or each that gave none.
    pub(super) async fn by_context(
        &self,
        heard: Numbered<'_>,
        frame: DataFrame<'_>,
        by: Deadline,
    ) -> ByContext {
        let here = match self.contexts.with_addr(frame.dev_addr()).await {
            Ok(here) => here,
            Err(error) => {
                tracing::warn!(DevAddr = %frame.dev_addr(), "its roaming contexts cannot be read, so its home is asked anew: {error}");
                Vec::new()
            }
        };
        let (Fitting { mut ask, forged }, moved_on) = self.book().fitting(here, frame, self.clock.unix());
        if let Some(context) = ask.first().filter(|_| moved_on)
            && let Err(error) = self.write(context.clone()).await
        {
            tracing::warn!(DevAddr = %frame.dev_addr(), "a visitor's counter is not on disk: {error}");
        }
        let mut last = None;
        if ask.is_empty() && !forged.is_empty() {
            self.count.forged.add();
            let why = format!(
                "the MIC of this frame of {} is not right by the key of its roaming context: it stays here",
                frame.dev_addr()
            );
            last = Some(Unanswered::Rule(why));
        }
        let mut asked = forged;
        asked.extend(ask.iter().map(|context| context.id.net_id));
        let certain = ask.len() == 1;
        ask.retain(|context| match self.is_above(context, Way::Up) {
            Some(why) => {
                last = Some(Unanswered::Rule(why));
                false
            }
            None => true,
        });
        if let Some(context) = ask.first().filter(|context| certain && self.has_parked(context.id.net_id)) {
            return self.wait_for_home(heard, context, asked).await;
        }
        let mut waiting: FuturesUnordered<_> =
            ask.iter().map(|context| self.forward(heard, context, certain, by)).collect();
        while let Some((id, answer)) = waiting.next().await {
            match answer {
                Ok(answer) => {
                    drop(waiting);
                    self.hold_offs().note_forwarded(id.net_id, id.dev_addr, self.clock.now());
                    self.supersede(id).await;
                    let its = ask.iter().find(|context| context.id == id);
                    let account = its.map(|context| self.charge(context, Way::Up));
                    return ByContext::Taken(PrStartAns { account, ..answer }, id.net_id);
                }
                Err(error) if certain && is_away(&error) => {
                    let Some(context) = ask.first() else { break };
                    tracing::debug!(NetID = %id.net_id, "{error}");
                    drop(waiting);
                    return self.wait_for_home(heard, context, asked).await;
                }
                Err(error) => last = Some(error.into()),
            }
        }
        drop(waiting);
        ByContext::Open { asked, last }
    }

    /// The home of this context cannot be reached, or older frames wait for it.
    async fn wait_for_home(&self, heard: Numbered<'_>, context: &Context, asked: Vec<NetId>) -> ByContext {
        let (net_id, dev_eui) = (context.id.net_id, Some(context.id.dev_eui));
        let ul = UlMeta { dev_eui, ..self.ul_meta(heard, Vec::new(), false) };
        self.park(heard, self.charge(context, Way::Up), ul, true).await;
        let why = format!("NetID {net_id} cannot be reached: the frame waits for it");
        ByContext::Open { asked, last: Some(Unanswered::Rule(why)) }
    }

    /// One context's network: XmitDataReq, and PRStartReq where the context is due or the sNS knows it no longer.
    async fn forward(
        &self,
        heard: Numbered<'_>,
        context: &Context,
        certain: bool,
        by: Deadline,
    ) -> (ContextId, Result<PrStartAns, PeerError>) {
        let (id, net_id) = (context.id, context.id.net_id);
        let addr = id.dev_addr;
        let held_off = self.hold_offs().contains(net_id, addr, self.clock.now());
        if context.stage(self.clock.unix()) == Stage::Due && !held_off {
            // 12.5 step 9: with an uplink, before the end
            match self.restart(heard, id, by).await {
                Err(error @ PeerError::Refused { .. }) => {
                    // not renewed, but not ended either
                    self.refused(net_id, addr, &error).await;
                }
                answer => return (id, answer),
            }
        }
        let answer = self.xmit_up(net_id, heard, certain.then_some(id.dev_eui), by).await;
        let Err(error) = answer else { return (id, answer) };
        if error.is(ResultCode::UnknownDevAddr) || error.is(ResultCode::UnknownDevEui) {
            // the sNS has forgotten it or ended it: begin anew with the same frame, so that none is lost
            tracing::info!(DevEUI = %id.dev_eui, DevAddr = %addr, NetID = %net_id, "its home has no roaming context any more");
            self.end(id).await;
            return (id, self.restart(heard, id, by).await);
        }
        if error.is(ResultCode::NoRoamingAgreement) {
            self.end(id).await;
        }
        (id, Err(error))
    }

    async fn restart(
        &self,
        heard: Numbered<'_>,
        id: ContextId,
        by: Deadline,
    ) -> Result<PrStartAns, PeerError> {
        let (answer, net_id) = self.start(id.net_id, heard, by).await?;
        self.hold_offs().note_served(net_id, id.dev_addr, self.clock.now());
        Ok(self.begin(heard, net_id, answer, id.dev_addr, by).await)
    }

    /// A data frame was granted (12.5 step 8): a Lifetime makes or renews a context; and the frame goes again where its
    /// sNS has not taken it with the question.
    pub(super) async fn begin(
        &self,
        heard: Numbered<'_>,
        net_id: NetId,
        answer: PrStartAns,
        addr: DevAddr,
        by: Deadline,
    ) -> PrStartAns {
        self.keep(net_id, &answer, (None, Some(addr))).await;
        let stateless = answer.lifetime.unwrap_or(0) == 0;
        let takes = |partner: &Partner| partner.quirks.contains(&Quirk::TakesFirstFrame);
        if self.partners.partner(net_id).is_some_and(takes) {
            return answer;
        }
        if stateless || answer.taken || answer.phy_payload.is_some() {
            return answer;
        }
        // A9: whatever comes of the repetition, except a downlink
        let again = self.xmit_up(net_id, heard, answer.dev_eui, by).await;
        again.ok().filter(|again| again.phy_payload.is_some()).unwrap_or(answer)
    }

    /// Keep what an answer grants, on disk before it is used.
    pub(super) async fn keep(
        &self,
        net_id: NetId,
        answer: &PrStartAns,
        asked: (Option<DevEui>, Option<DevAddr>),
    ) {
        let made = contexts::granted(net_id, answer, asked, &self.ours, self.clock.unix());
        let context = match made {
            Ok(Some(context)) if net_id != self.me => context,
            Ok(_) => return,
            Err(refused) => return self.refuse_context(net_id, refused),
        };
        let (id, dev_eui) = (context.id, context.id.dev_eui);
        let kept = async {
            let earlier = self.contexts.of_device(net_id, dev_eui).await?;
            let known = earlier.iter().any(|context| context.id == id);
            if !known && let Err(refused) = self.book().room_for(net_id) {
                self.refuse_context(net_id, refused);
                return Ok(None);
            }
            self.write(context.clone()).await?;
            Ok::<_, StoreError>(Some(earlier.is_empty()))
        };
        let is_new = match kept.await {
            Ok(Some(is_new)) => is_new,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(NetID = %net_id, "a roaming context is not on disk, so each uplink asks anew: {error}");
                return;
            }
        };
        tracing::info!(target: "roamgate::frame", milestone = "roaming context", DevEUI = %dev_eui,
            DevAddr = %id.dev_addr, NetID = %net_id, Lifetime = context.lifetime,
            mic_check = context.mic_key.is_some());
        // a join was noted when its answer went out
        if is_new && asked.0.is_none() {
            self.note_roaming(net_id, dev_eui, Some(context.terms.profile)).await;
        }
    }

    /// On disk, and counted where it is new there: it may have ended since it was read.
    async fn write(&self, context: Context) -> Result<(), StoreError> {
        let id = context.id;
        if self.contexts.keep(context).await? {
            self.book().added(id);
        }
        Ok(())
    }

    fn refuse_context(&self, net_id: NetId, refused: NoContext) {
        let (why, remedy) = (refused.to_string(), refused.remedy());
        // the cause without the address: a partner could name one after the other
        let told = lock(&self.seldom).tell(&net_id.to_string(), remedy, self.clock.now());
        if let Some(left_out) = told {
            tracing::warn!(NetID = %net_id, why, remedy, left_out, "a roaming context is refused");
        }
    }

    /// The device uses this context, so those of its earlier sessions are of no use.
    async fn supersede(&self, used: ContextId) {
        if !self.book().is_first_use(used) {
            return;
        }
        let superseding = async {
            let all = self.contexts.of_device(used.net_id, used.dev_eui).await?;
            self.forget(contexts::before(&all, used)).await
        };
        if let Err(error) = superseding.await {
            tracing::warn!("an earlier roaming context stays until its end: {error}");
        }
    }

    async fn end(&self, id: ContextId) {
        if let Err(error) = self.forget(vec![id]).await {
            tracing::warn!(DevAddr = %id.dev_addr, "an ended roaming context comes back with the next start: {error}");
        }
    }

    /// Off the disk, and out of the book.
    pub(super) async fn forget(&self, ids: Vec<ContextId>) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        // a context of an earlier session ends while the device roams on
        for (id, roams_on) in self.contexts.forget(ids).await? {
            self.book().removed(id);
            if !roams_on {
                self.note_roaming(id.net_id, id.dev_eui, None).await;
            }
        }
        Ok(())
    }

    /// XmitDataReq(up) to one network, with a token made for it. Its answer in the form of the other question's.
    async fn xmit_up(
        &self,
        to: NetId,
        heard: Numbered<'_>,
        dev_eui: Option<DevEui>,
        by: Deadline,
    ) -> Result<PrStartAns, PeerError> {
        let party = Party::Ns(to);
        let token = self.seal.make(&party, &self.hearing_of(heard), self.clock.random());
        let req = XmitUp {
            phy_payload: heard.phy.clone(),
            ul: UlMeta { dev_eui, ..self.ul_meta(heard, token, false) },
            downlink_in_answer: self.downlink_in_answer,
        };
        let answer = self.peers.ask(party, req, by).await?;
        let (phy_payload, dl) = answer.riding.unzip();
        Ok(PrStartAns { phy_payload, dl, ..PrStartAns::default() })
    }

    /// Contexts of visitors.
    pub fn contexts(&self) -> usize {
        self.book().count()
    }
}

/// The DevEUI of a Join-request or Rejoin-request.
pub(super) fn joining(phy: &[u8]) -> Option<DevEui> {
    match Uplink::parse(phy) {
        Ok(Uplink::Join(join)) => Some(join.dev_eui()),
        Ok(Uplink::Rejoin(rejoin)) => Some(rejoin.dev_eui()),
        _ => None,
    }
}
