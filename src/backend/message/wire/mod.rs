//! JSON on the wire: headers, hex, aliases (TS002 sections 5, 7, 8, 18).
//!
//! The receiving end opens an [`Envelope`], reads its [`Header`], decides who is asking, and only
//! then reads the body: the steps of section 6.1 keep their order. The sending end writes a request
//! and reads its answer. What is emitted is the specification's form; what is accepted is wider.

mod body;
mod dialect;
mod json;
mod profile;

use std::fmt;

pub use dialect::Dialect;
use json::{Fields, Json, Members, Object, malformed};

use super::*;
use crate::backend::keywrap::Keks;

/// ProtocolVersion, without its patch level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Version {
    V1_0,
    V1_1,
}

impl fmt::Display for Version {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Version::V1_0 => "1.0",
            Version::V1_1 => "1.1",
        })
    }
}

/// What every message carries beside its body (section 5).
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// ProtocolVersion.
    pub version: Version,
    /// SenderID.
    pub sender: Party,
    /// ReceiverID.
    pub receiver: Party,
    /// TransactionID.
    pub transaction: u32,
    /// SenderToken: to be handed back.
    pub sender_token: Option<Vec<u8>>,
    /// ReceiverToken: our own, handed back.
    pub receiver_token: Option<Vec<u8>>,
    /// SenderNSID (1.1 only).
    pub sender_nsid: Option<NsId>,
    /// ReceiverNSID (1.1 only), where it is known.
    pub receiver_nsid: Option<NsId>,
    /// How it is written; nothing of what was read.
    pub dialect: Dialect,
}

impl Header {
    /// The header of a 1.0 request without tokens.
    pub fn new(sender: Party, receiver: Party, transaction: u32) -> Header {
        let version = Version::V1_0;
        Header {
            version,
            sender,
            receiver,
            transaction,
            sender_token: None,
            receiver_token: None,
            sender_nsid: None,
            receiver_nsid: None,
            dialect: Dialect::default(),
        }
    }
}

/// The kinds of party between which a message type travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ns,
    Js,
    As,
}

/// The requests of TS002 table 12. Each has an answer of its own name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum MessageType {
    HomeNs,
    PrStart,
    PrStop,
    HrStart,
    HrStop,
    Profile,
    XmitData,
    XmitLoc,
    Join,
    Rejoin,
    AppSKey,
}

impl MessageType {
    const ALL: [MessageType; 11] = [
        MessageType::HomeNs,
        MessageType::PrStart,
        MessageType::PrStop,
        MessageType::HrStart,
        MessageType::HrStop,
        MessageType::Profile,
        MessageType::XmitData,
        MessageType::XmitLoc,
        MessageType::Join,
        MessageType::Rejoin,
        MessageType::AppSKey,
    ];

    /// Request, answer, and who asks whom.
    const fn row(self) -> (&'static str, &'static str, Kind, Kind) {
        use Kind::{As, Js, Ns};
        match self {
            MessageType::HomeNs => ("HomeNSReq", "HomeNSAns", Ns, Js),
            MessageType::PrStart => ("PRStartReq", "PRStartAns", Ns, Ns),
            MessageType::PrStop => ("PRStopReq", "PRStopAns", Ns, Ns),
            MessageType::HrStart => ("HRStartReq", "HRStartAns", Ns, Ns),
            MessageType::HrStop => ("HRStopReq", "HRStopAns", Ns, Ns),
            MessageType::Profile => ("ProfileReq", "ProfileAns", Ns, Ns),
            MessageType::XmitData => ("XmitDataReq", "XmitDataAns", Ns, Ns),
            MessageType::XmitLoc => ("XmitLocReq", "XmitLocAns", Ns, Ns),
            MessageType::Join => ("JoinReq", "JoinAns", Ns, Js),
            MessageType::Rejoin => ("RejoinReq", "RejoinAns", Ns, Js),
            MessageType::AppSKey => ("AppSKeyReq", "AppSKeyAns", As, Js),
        }
    }

    /// MessageType of the request.
    pub const fn request(self) -> &'static str {
        self.row().0
    }

    /// MessageType of the answer.
    pub const fn answer(self) -> &'static str {
        self.row().1
    }

    /// The type that a request of ours has.
    pub fn of(request: &Request) -> MessageType {
        match request {
            Request::HomeNs(_) => MessageType::HomeNs,
            Request::PrStart(_) => MessageType::PrStart,
            Request::PrStop(_) => MessageType::PrStop,
            Request::XmitUp(_) | Request::XmitDown(_) => MessageType::XmitData,
            Request::XmitAppUp(_) | Request::XmitAppDown(_) => MessageType::XmitData,
            Request::Join(_) => MessageType::Join,
            Request::Rejoin(_) => MessageType::Rejoin,
            Request::HrStart(_) | Request::HrRegain(_) => MessageType::HrStart,
            Request::HrStop(_) => MessageType::HrStop,
            Request::Profile(_) => MessageType::Profile,
            Request::AppSKey(_) => MessageType::AppSKey,
        }
    }
}

/// A body that cannot be attributed to a message type: HTTP 400 (step 2).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAttributable {
    /// Not a JSON object.
    #[error("the body is not a JSON object: {0}")]
    NotJson(String),
    /// No type, or none of a string.
    #[error("MessageType is missing or not a string")]
    NoType,
    /// A type that neither version of TS002 has.
    #[error("MessageType {0:?} is unknown")]
    UnknownType(String),
}

impl NotAttributable {
    /// The bare Result that goes with HTTP 400 (section 4.2).
    pub fn body(&self) -> Vec<u8> {
        let mut message = Members::default();
        put_result(&mut message, "MalformedRequest", &self.to_string());
        message.bytes()
    }
}

/// A message that came in, attributed to its type and not looked at any further.
#[derive(Debug, Clone, PartialEq)]
pub enum Incoming {
    /// Wants an answer.
    Request(Envelope),
    /// The answer to something that was asked before: nothing is ever answered to it (step 3).
    Answer(Reply),
    /// Something that has happened to an earlier message (1.1): likewise.
    Notice(Notice),
    /// An answer or a notification that nobody can understand (its MessageType): likewise.
    Unasked(String),
}

/// Whose answer it is, and to what.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// MessageType.
    pub name: &'static str,
    /// SenderID.
    pub sender: Party,
    /// ReceiverID.
    pub receiver: Party,
    /// TransactionID.
    pub transaction: u32,
}

/// PRStartNotif or ErrorNotif.
#[derive(Debug, Clone, PartialEq)]
pub struct Notice {
    /// MessageType.
    pub name: &'static str,
    /// SenderID.
    pub sender: Party,
    /// TransactionID of the message that it is about.
    pub transaction: u32,
    /// What happened.
    pub result: Result<(), Refusal>,
}

/// MessageTypes that get no answer.
const PR_START_NOTIF: &str = "PRStartNotif";
const ERROR_NOTIF: &str = "ErrorNotif";

/// Steps 2 and 3 of section 6.1.
pub fn open(body: &[u8]) -> Result<Incoming, NotAttributable> {
    let object = object(body)?;
    let fields = Fields::top(&object);
    let name = fields.text("MessageType").ok().flatten().ok_or(NotAttributable::NoType)?;
    if let Some(message_type) = MessageType::ALL.into_iter().find(|kind| kind.request() == name) {
        return Ok(Incoming::Request(Envelope { message_type, object }));
    }
    if let Some(message_type) = MessageType::ALL.into_iter().find(|kind| kind.answer() == name) {
        let (_, answer, from, to) = message_type.row();
        let reply = || {
            let (sender, receiver) = (party(&fields, "SenderID", to)?, party(&fields, "ReceiverID", from)?);
            let transaction = fields.need("TransactionID", fields.u32("TransactionID")?)?;
            Ok::<_, Refusal>(Reply { name: answer, sender, receiver, transaction })
        };
        return Ok(reply().map_or_else(|_| Incoming::Unasked(name.to_owned()), Incoming::Answer));
    }
    if let Some(name) = [PR_START_NOTIF, ERROR_NOTIF].into_iter().find(|notice| *notice == name) {
        return Ok(notice(name, &fields).map_or_else(|| Incoming::Unasked(name.into()), Incoming::Notice));
    }
    Err(NotAttributable::UnknownType(cut(name, 40)))
}

fn notice(name: &'static str, fields: &Fields) -> Option<Notice> {
    // an ErrorNotif may come from a join server
    let sender = party(fields, "SenderID", Kind::Ns).or_else(|_| party(fields, "SenderID", Kind::Js)).ok()?;
    let transaction = fields.u32("TransactionID").ok()??;
    let (code, description) = result(fields).ok()?;
    let refusal = Refusal::new(code, description);
    let result = if code == ResultCode::Success { Ok(()) } else { Err(refusal) };
    Some(Notice { name, sender, transaction, result })
}

fn object(body: &[u8]) -> Result<Object, NotAttributable> {
    match serde_json::from_slice(body) {
        Ok(Json::Object(object)) => Ok(object),
        Ok(_) => Err(NotAttributable::NotJson("it is something else".into())),
        Err(error) => Err(NotAttributable::NotJson(error.to_string())),
    }
}

fn cut(text: &str, length: usize) -> String {
    text.chars().take(length).collect()
}

/// A request whose header and body are still to be read.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope {
    message_type: MessageType,
    object: Object,
}

impl Envelope {
    /// Which request it is.
    pub fn message_type(&self) -> MessageType {
        self.message_type
    }

    /// SenderID, ReceiverID and TransactionID as sent, for the log of a refusal.
    pub fn as_sent(&self) -> (String, String, Option<u32>) {
        let fields = Fields::top(&self.object);
        let text = |name| cut(fields.text(name).ok().flatten().unwrap_or_default(), 64);
        (text("SenderID"), text("ReceiverID"), fields.u32("TransactionID").ok().flatten())
    }

    /// Steps 4 to 6 of section 6.1.
    pub fn header(&self) -> Result<Header, Refusal> {
        let fields = Fields::top(&self.object);
        if let Some(name) = self.object.duplicate() {
            return Err(malformed(format!("{} occurs twice", cut(name, 40))));
        }
        let version = version(fields.need("ProtocolVersion", fields.text("ProtocolVersion")?)?)?;
        let transaction = fields.need("TransactionID", fields.u32("TransactionID")?)?;
        let (_, _, from, to) = self.message_type.row();
        let sender = party(&fields, "SenderID", from)?;
        let receiver = party(&fields, "ReceiverID", to)?;
        // In 1.0 an NSID is ignored, whatever it is.
        let nsid = |name| match version {
            Version::V1_0 => Ok(None),
            Version::V1_1 => fields.array(name).map(|nsid| nsid.map(NsId::from_msb)),
        };
        let (sender_nsid, receiver_nsid) = (nsid("SenderNSID")?, nsid("ReceiverNSID")?);
        if version == Version::V1_1 && from == Kind::Ns {
            fields.need("SenderNSID", sender_nsid)?;
        }
        Ok(Header {
            version,
            sender,
            receiver,
            transaction,
            sender_token: fields.bytes("SenderToken")?,
            receiver_token: fields.bytes("ReceiverToken")?,
            sender_nsid,
            receiver_nsid,
            dialect: Dialect::default(),
        })
    }

    /// Steps 10 and 11 of section 6.1. A message type that is not handled here gives the refusal
    /// that a network without its procedure owes.
    pub fn body(&self) -> Result<Request, Refusal> {
        body::request(self.message_type, &Fields::top(&self.object))
    }

    /// The Ans. Takes from the request whatever can be read of its header, so that a malformed one
    /// is answered too; speaks the request's ProtocolVersion where that is ours.
    pub fn answer(&self, result: &Result<Answer, Refusal>, keks: &Keks) -> Vec<u8> {
        self.answer_in(Dialect::default(), result, keks)
    }

    /// The same as its reader wants it written.
    pub fn answer_in(&self, dialect: Dialect, result: &Result<Answer, Refusal>, keks: &Keks) -> Vec<u8> {
        let fields = Fields::top(&self.object);
        let (_, answer, from, to) = self.message_type.row();
        let version = match fields.text("ProtocolVersion") {
            Ok(Some(text)) => version(text).unwrap_or(Version::V1_1),
            _ => Version::V1_0,
        };
        let mut message = Members::default();
        message.put("ProtocolVersion", version.to_string());
        message.put("MessageType", answer);
        message.put("TransactionID", fields.u32("TransactionID").ok().flatten().unwrap_or(0));
        for (ours, theirs, kind) in [("SenderID", "ReceiverID", to), ("ReceiverID", "SenderID", from)] {
            let known = party(&fields, theirs, kind).ok().map(|party| party.to_string());
            let raw = || fields.text(theirs).ok().flatten().map(|text| cut(text, 64));
            message.some(ours, known.or_else(raw));
        }
        let token = fields.bytes("SenderToken").ok().flatten();
        message.some_hex("ReceiverToken", token.as_deref());
        if let (Version::V1_1, Ok(Some(nsid))) = (version, fields.array::<8>("SenderNSID")) {
            message.hex("ReceiverNSID", &nsid);
        }
        if self.message_type == MessageType::AppSKey {
            // mandatory in this answer, failures included
            for name in ["DevEUI", "SessionKeyID"] {
                message.some_hex(name, fields.bytes(name).ok().flatten().as_deref());
            }
        }
        let refusal = match result {
            Ok(answer) if fits(self.message_type, answer) => {
                let mut objects = Members::default();
                match body::put_answer(&mut objects, answer, version, keks) {
                    Ok(()) => {
                        put_result(&mut message, "Success", "");
                        message.append(objects);
                        return message.spoken(dialect);
                    }
                    Err(error) => Refusal::new(ResultCode::Other, error.to_string()),
                }
            }
            Ok(_) => Refusal::new(ResultCode::Other, "answer of another kind"),
            // nobody may say Success without the objects of a success
            Err(refusal) if refusal.code == ResultCode::Success => {
                Refusal { code: ResultCode::Other, ..refusal.clone() }
            }
            Err(refusal) => refusal.clone(),
        };
        put_result(&mut message, code_text(refusal.code, version, self.message_type), &refusal.description);
        match (self.message_type, refusal.code, refusal.lifetime) {
            (MessageType::PrStart | MessageType::HrStart | MessageType::Profile, _, Some(lifetime)) => {
                message.put("Lifetime", lifetime);
            }
            // mandatory with Deferred; NoAction is written as Deferred in 1.0
            (MessageType::PrStart, ResultCode::Deferred | ResultCode::NoAction, None) => {
                message.put("Lifetime", 0);
            }
            _ => {}
        }
        if let (MessageType::HrStart, Some(at)) = (self.message_type, &refusal.profile) {
            profile::put_profile(&mut message, at);
        }
        body::put_next_fcnt_down(&mut message, refusal.fcnt_down);
        message.spoken(dialect)
    }
}

fn fits(message_type: MessageType, answer: &Answer) -> bool {
    matches!(
        (message_type, answer),
        (MessageType::HomeNs, Answer::HomeNs(_))
            | (MessageType::PrStart, Answer::PrStart(_))
            | (MessageType::PrStop, Answer::PrStop(_))
            | (MessageType::XmitData, Answer::Xmit(_))
            | (MessageType::Join | MessageType::Rejoin, Answer::Join(_))
            | (MessageType::HrStart, Answer::HrStart(_) | Answer::HrRegain(_))
            | (MessageType::HrStop, Answer::HrStop(_))
            | (MessageType::Profile, Answer::Profile(_))
            | (MessageType::AppSKey, Answer::AppSKey(_))
    )
}

fn version(text: &str) -> Result<Version, Refusal> {
    let mut parts = text.split('.');
    let found = match (parts.next(), parts.next()) {
        (Some("1"), Some("0")) => Some(Version::V1_0),
        (Some("1"), Some("1")) => Some(Version::V1_1),
        _ => None,
    };
    let patch = parts.next().is_none_or(|patch| patch.parse::<u16>().is_ok());
    found
        .filter(|_| patch && parts.next().is_none())
        .ok_or_else(|| Refusal::new(ResultCode::InvalidProtocolVersion, "1.0 and 1.1 are supported"))
}

fn party(fields: &Fields, name: &str, kind: Kind) -> Result<Party, Refusal> {
    match kind {
        Kind::Ns => Ok(Party::Ns(NetId::from_msb(fields.need(name, fields.array(name)?)?))),
        Kind::Js => Ok(Party::Js(JoinEui::from_msb(fields.need(name, fields.array(name)?)?))),
        Kind::As => {
            let id = fields.need(name, fields.text(name)?)?;
            if id.len() <= 255 && id.bytes().all(|byte| byte.is_ascii_graphic()) {
                Ok(Party::As(id.to_owned()))
            } else {
                Err(fields.wrong(name, "is no AS-ID"))
            }
        }
    }
}

/// A request of ours.
pub fn encode_request(header: &Header, request: &Request) -> Vec<u8> {
    let mut message = head(header, request.message_type());
    body::put_request(&mut message, header.version, request);
    message.spoken(header.dialect)
}

/// PRStartNotif (1.1): what became of the Join-accept that came as an answer to the request with this header's TransactionID.
pub fn encode_notif(header: &Header, outcome: &Result<(), Refusal>) -> Vec<u8> {
    let mut message = head(header, PR_START_NOTIF);
    match outcome {
        Ok(()) => put_result(&mut message, "Success", ""),
        Err(refusal) => {
            let code = code_text(refusal.code, header.version, MessageType::PrStart);
            put_result(&mut message, code, &refusal.description);
        }
    }
    message.spoken(header.dialect)
}

fn head(header: &Header, message_type: &str) -> Members {
    let mut message = Members::default();
    message.put("ProtocolVersion", header.version.to_string());
    message.put("SenderID", header.sender.to_string());
    message.put("ReceiverID", header.receiver.to_string());
    message.put("TransactionID", header.transaction);
    message.put("MessageType", message_type);
    message.some_hex("SenderToken", header.sender_token.as_deref());
    message.some_hex("ReceiverToken", header.receiver_token.as_deref());
    if header.version == Version::V1_1 {
        message.shown("SenderNSID", header.sender_nsid);
        message.shown("ReceiverNSID", header.receiver_nsid);
    }
    message
}

/// Why what came back is no answer to what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Confused {
    /// No JSON object, or none with a Result.
    #[error("no answer: {0}")]
    NoAnswer(String),
    /// An answer to something else.
    #[error("{name} is {got:?}, not {expected:?}")]
    Other {
        /// The header object that differs.
        name: &'static str,
        /// What it says.
        got: String,
        /// What it should say.
        expected: String,
    },
    /// Success, but its objects are not what the tables ask for.
    #[error("{0}")]
    Malformed(String),
}

/// SenderToken of an answer: its sender wants to see it again.
pub fn sender_token(body: &[u8]) -> Option<Vec<u8>> {
    const NAME: &[u8] = b"SenderToken";
    // few partners send one, and nobody else's answers are read twice for it
    body.windows(NAME.len()).any(|window| window == NAME).then_some(())?;
    Fields::top(&object(body).ok()?).bytes("SenderToken").ok()?
}

/// The answer to `request`, which went out under `asked`.
///
/// A bare Result without a header is taken as a refusal, never as a success (section 4.2).
pub fn decode_answer(
    body: &[u8],
    asked: &Header,
    request: &Request,
    keks: &Keks,
) -> Result<Result<Answer, Refusal>, Confused> {
    let object = object(body).map_err(|error| Confused::NoAnswer(error.to_string()))?;
    let fields = Fields::top(&object);
    let wrong = |refusal: Refusal| Confused::Malformed(refusal.description);
    if let Some(name) = object.duplicate() {
        return Err(Confused::Malformed(format!("{} occurs twice", cut(name, 40))));
    }
    let (code, description) = result(&fields)?;
    let success = code == ResultCode::Success;

    let message_type = MessageType::of(request);
    let (_, answer, from, to) = message_type.row();
    let party = |name, kind| {
        let found = fields.has(name).then(|| party(&fields, name, kind)).transpose();
        found.map(|party| party.map(|party| party.to_string())).map_err(wrong)
    };
    let transaction = fields.u32("TransactionID").map_err(wrong)?;
    // A peer that could not read ours answers 0.
    let transaction = transaction.filter(|id| success || *id != 0);
    let checks = [
        ("MessageType", fields.text("MessageType").map_err(wrong)?.map(str::to_owned), answer.to_owned()),
        ("TransactionID", transaction.map(|id| id.to_string()), asked.transaction.to_string()),
        ("SenderID", party("SenderID", to)?, asked.receiver.to_string()),
        ("ReceiverID", party("ReceiverID", from)?, asked.sender.to_string()),
    ];
    for (name, got, expected) in checks {
        match got {
            // an error outside an answer is one to this request by its TransactionID
            Some(got) if name == "MessageType" && got == ERROR_NOTIF && !success => {}
            None if !success => {}
            None => return Err(Confused::Malformed(format!("{name} is missing"))),
            Some(got) if got != expected => {
                return Err(Confused::Other { name, got: cut(&got, 64), expected });
            }
            Some(_) => {}
        }
    }

    if success {
        return body::answer(request, asked.version, &fields, keks).map(Ok).map_err(wrong);
    }
    // A refusal stands even if its Lifetime cannot be read.
    let lifetime = fields.u32("Lifetime").ok().flatten();
    let fcnt_down = body::next_fcnt_down(&fields);
    // what is stale without the new profile is just a refusal
    let profile = profile::profile(&fields).ok().flatten().filter(|_| code == ResultCode::StaleDeviceProfile);
    let profile = profile.map(Box::new);
    Ok(Err(Refusal { lifetime, fcnt_down, profile, ..Refusal::new(code, description) }))
}

fn result(fields: &Fields) -> Result<(ResultCode, String), Confused> {
    let wrong = |refusal: Refusal| Confused::NoAnswer(refusal.description);
    // one server writes the code alone, where the object belongs
    let (text, description) = match fields.text("Result") {
        Ok(text) => (text, None),
        Err(_) => match fields.object("Result").map_err(wrong)? {
            None => (None, None),
            Some(result) => {
                (result.text("ResultCode").map_err(wrong)?, result.text("Description").ok().flatten())
            }
        },
    };
    let text = text.ok_or_else(|| Confused::NoAnswer("Result is missing".into()))?;
    let description = cut(description.unwrap_or_default(), 500);
    Ok(match code(text) {
        Some(code) => (code, description),
        // a code of the future or of one vendor: a failure whose name goes to the log
        None => (ResultCode::Other, format!("{} {description}", cut(text, 60)).trim_end().to_owned()),
    })
}

fn put_result(to: &mut Members, code: &str, description: &str) {
    let mut result = Members::default();
    result.put("ResultCode", code);
    if !description.is_empty() {
        result.put("Description", cut(description, 500));
    }
    to.put("Result", result.object());
}

/// Codes of 1.1 are never written in 1.0: peers fail on words they do not know.
fn code_text(code: ResultCode, version: Version, message_type: MessageType) -> &'static str {
    let v1_0 = version == Version::V1_0;
    match code {
        ResultCode::Success => "Success",
        ResultCode::MicFailed => "MICFailed",
        ResultCode::JoinReqFailed => "JoinReqFailed",
        ResultCode::NoRoamingAgreement => "NoRoamingAgreement",
        ResultCode::DevRoamingDisallowed => "DevRoamingDisallowed",
        ResultCode::RoamingActDisallowed => "RoamingActDisallowed",
        ResultCode::ActivationDisallowed => "ActivationDisallowed",
        ResultCode::UnknownDevEui => "UnknownDevEUI",
        ResultCode::UnknownDevAddr => "UnknownDevAddr",
        ResultCode::UnknownSender => "UnknownSender",
        // spelt so in the code table of both versions
        ResultCode::UnknownReceiver => "UnkownReceiver",
        ResultCode::Deferred => "Deferred",
        ResultCode::XmitFailed => "XmitFailed",
        ResultCode::InvalidFPort => "InvalidFPort",
        ResultCode::InvalidProtocolVersion => "InvalidProtocolVersion",
        ResultCode::StaleDeviceProfile => "StaleDeviceProfile",
        ResultCode::MalformedRequest if v1_0 => "MalformedRequest",
        ResultCode::MalformedRequest => "MalformedMessage",
        ResultCode::FrameSizeError => "FrameSizeError",
        ResultCode::Other => "Other",
        ResultCode::NoAction if !v1_0 => "NoAction",
        ResultCode::FrameReplayed if !v1_0 => "FrameReplayed",
        // A32
        ResultCode::NoAction if message_type == MessageType::PrStart => "Deferred",
        ResultCode::NoAction => "Other",
        // A2
        ResultCode::FrameReplayed if message_type == MessageType::XmitData => "Other",
        ResultCode::FrameReplayed => "JoinReqFailed",
    }
}

fn code(text: &str) -> Option<ResultCode> {
    Some(match text {
        "Success" => ResultCode::Success,
        "MICFailed" => ResultCode::MicFailed,
        "JoinReqFailed" => ResultCode::JoinReqFailed,
        "NoRoamingAgreement" => ResultCode::NoRoamingAgreement,
        "DevRoamingDisallowed" => ResultCode::DevRoamingDisallowed,
        "RoamingActDisallowed" | "RoamingActDisallowedA" => ResultCode::RoamingActDisallowed,
        "ActivationDisallowed" => ResultCode::ActivationDisallowed,
        "UnknownDevEUI" => ResultCode::UnknownDevEui,
        "UnknownDevAddr" => ResultCode::UnknownDevAddr,
        "UnknownSender" => ResultCode::UnknownSender,
        "UnkownReceiver" | "UnknownReceiver" | "UnknownReceiverID" => ResultCode::UnknownReceiver,
        "Deferred" => ResultCode::Deferred,
        "XmitFailed" => ResultCode::XmitFailed,
        "InvalidFPort" => ResultCode::InvalidFPort,
        "InvalidProtocolVersion" => ResultCode::InvalidProtocolVersion,
        "StaleDeviceProfile" => ResultCode::StaleDeviceProfile,
        "MalformedRequest" | "MalformedMessage" => ResultCode::MalformedRequest,
        "FrameSizeError" => ResultCode::FrameSizeError,
        "Other" => ResultCode::Other,
        "NoAction" => ResultCode::NoAction,
        "FrameReplayed" => ResultCode::FrameReplayed,
        _ => return None,
    })
}
