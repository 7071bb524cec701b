//! What the pages show, from the API's answers. Called by `pages` only.

use axum::http::StatusCode;
use jiff::Timestamp;
use serde_json::Value;

use super::{Trouble, Visit};
use crate::web::page::{Cell, Field, Form, Kind, Page, Row, Section};

const SCOPES: &[&str] = &["read", "write", "admin"];

/// One of the pages of the menu.
pub(super) async fn page(visit: &Visit<'_>, name: &str) -> Result<Page, Trouble> {
    let me = visit.get("/v1/me").await?;
    let operates = me["operator"] == true;
    let (title, sections) = match name {
        "names" => ("Names", names(visit, &me).await?),
        "certificates" => ("Certificates", certificates(visit, operates).await?),
        "people" => ("People and keys", people(visit).await?),
        "zone" => ("Zone", zone(visit, operates).await?),
        "audit" => ("Log", audit(visit).await?),
        "members" if operates => ("Members", members(visit).await?),
        _ => {
            let (status, error) = (StatusCode::NOT_FOUND, "there is no such page".into());
            return Err(Trouble { status, error, remedy: String::new() });
        }
    };
    Ok(visit.page(title, name, operates, sections))
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn day(seconds: &Value) -> String {
    let at = seconds.as_i64().and_then(|seconds| Timestamp::from_second(seconds).ok());
    at.map(|at| at.strftime("%Y-%m-%d %H:%M UTC").to_string()).unwrap_or_default()
}

/// A button that concerns one line.
fn button(deed: &str, word: &'static str, id: &Value, of: &str, danger: bool) -> Form {
    Form {
        action: format!("/do/{deed}"),
        button: word,
        label: format!("{word}: {of}"),
        danger,
        fields: vec![Field::hidden("id", text(id))],
    }
}

fn form(deed: &str, word: &'static str, fields: Vec<Field>) -> Form {
    Form { action: format!("/do/{deed}"), button: word, fields, ..Form::default() }
}

/// What a claim or a wish is to.
fn what(claim: &Value) -> String {
    match &claim["net_id"] {
        Value::String(net_id) => net_id.clone(),
        _ => text(&claim["join_euis"]),
    }
}

/// The same in an address: with a hyphen for the slash.
fn in_path(claim: &Value) -> String {
    what(claim).replace('/', "-")
}

fn records(name: &Value) -> String {
    let line = |record: &Value| {
        format!("{} {} {}", text(&record["ttl"]), text(&record["type"]), text(&record["data"]))
    };
    list(&name["records"]).map(line).collect::<Vec<_>>().join("\n")
}

const RECORDS: &str =
    "One a line: AAAA 2001:db8::1, or CNAME js.acme.example; with a TTL in front if you like.";

async fn names(visit: &Visit<'_>, me: &Value) -> Result<Vec<Section>, Trouble> {
    let claims = visit.get("/v1/claims").await?;
    let row = |claim: &Value| {
        let (kind, of) = match claim["net_id"].is_string() {
            true => ("net-ids", "NetID"),
            false => ("join-euis", "JoinEUI"),
        };
        let cell = Cell { to: format!("/at/{kind}/{}", in_path(claim)), ..Cell::code(what(claim)) };
        let id = Value::from(in_path(claim));
        Row {
            cells: vec![cell, of.into(), Cell::code(text(&claim["name"]))],
            forms: vec![button("give-back", "Give back", &id, &what(claim), true)],
        }
    };
    let yours = Section {
        title: "Yours".into(),
        help: "Choose one to say where its server is.".into(),
        columns: vec!["NetID or JoinEUIs", "", "Name in the zone"],
        rows: list(&claims).map(row).collect(),
        empty: "Nothing yet. Ask for it below.",
        ..Section::default()
    };
    let mut sections = vec![yours, waiting(visit, me["operator"] == true).await?];
    let wanted = vec![
        Field::line("what", "NetID or JoinEUIs", "C00ABC, 70B3D57ED0000001, or a block: 70B3D57ED0000000/36"),
        Field::line(
            "domain",
            "A domain of yours",
            "acme.example: a TXT record in it proves that it is you who asks",
        ),
    ];
    let mut ask = Section {
        title: "Ask for more".into(),
        help: "What the IEEE or the LoRa Alliance has given you. The operator compares whose the domain is."
            .into(),
        forms: vec![form("wish", "Ask", wanted)],
        ..Section::default()
    };
    if let Some(range) = me["net_ids"].as_str() {
        ask.help.push_str(&format!(" NetIDs {range} are this federation's own: have the next free one."));
        ask.forms.push(form("hand-out", "Have a NetID", Vec::new()));
    }
    sections.push(ask);
    let devices = vec![
        Field::line("join_eui", "JoinEUI", "One of yours, 16 digits"),
        Field::line("dev_euis", "DevEUIs", "One a line").of(Kind::Lines),
        Field::line("records", "Where their join server is", RECORDS).of(Kind::Lines),
    ];
    sections.push(Section {
        title: "Devices that have moved".into(),
        help: "Their join server is another one than that of their JoinEUI. Nothing is done to the devices."
            .into(),
        forms: vec![form("move", "Put them into the zone", devices)],
        ..Section::default()
    });
    sections.push(everything(visit).await?);
    Ok(sections)
}

async fn waiting(visit: &Visit<'_>, operates: bool) -> Result<Section, Trouble> {
    let wishes = visit.get("/v1/claims/waiting").await?;
    let row = |wish: &Value| {
        let proven = match (wish["proven"].is_number(), wish["secure"] == true) {
            (true, true) => "proven by DNSSEC",
            (true, false) => "there; not signed",
            (false, _) => "not seen yet",
        };
        let record = format!("{} TXT \"{}\"", text(&wish["name"]), text(&wish["text"]));
        let mut forms = vec![button("prove", "Look for it", &wish["id"], &what(wish), false)];
        if operates {
            forms.push(button("fulfil", "Grant", &wish["id"], &what(wish), false));
        }
        forms.push(button("withdraw", "Withdraw", &wish["id"], &what(wish), true));
        let of = format!("member {}\n{}", text(&wish["member"]), text(&wish["domain"]));
        Row {
            cells: vec![
                Cell::code(what(wish)),
                of.into(),
                text(&wish["organisation"]).into(),
                Cell::code(record),
                proven.into(),
            ],
            forms,
        }
    };
    Ok(Section {
        title: "Asked for".into(),
        columns: vec!["What", "By", "Given by the IEEE to", "Record that proves it", "Proof"],
        rows: list(&wishes).map(row).collect(),
        empty: "Nothing waits.",
        ..Section::default()
    })
}

async fn everything(visit: &Visit<'_>) -> Result<Section, Trouble> {
    let page = visit.get("/v1/records").await?;
    let row = |name: &Value| Row {
        cells: vec![Cell::code(text(&name["name"])), Cell::code(records(name))],
        forms: Vec::new(),
    };
    let more = match page["after"].is_string() {
        true => "The first of them; GET /v1/records has all.",
        false => "",
    };
    Ok(Section {
        title: "What stands in the zone".into(),
        help: more.into(),
        columns: vec!["Name", "Records"],
        rows: list(&page["names"]).map(row).collect(),
        empty: "Nothing of yours.",
        ..Section::default()
    })
}

/// One name: what stands there, and what readers find.
pub(super) async fn name(visit: &Visit<'_>, path: &str) -> Result<Page, Trouble> {
    let me = visit.get("/v1/me").await?;
    let name = visit.get(&format!("/v1/{path}")).await?;
    let found = visit.get(&format!("/v1/{path}/found")).await?;
    let here = || Field::hidden("path", path);
    let under =
        Field::line("under", "Service below it", "Empty, or such as _443._tcp for a TLSA record").optional();
    let wanted = Field::line("records", "Records", RECORDS).of(Kind::Lines).filled(records(&name));
    let mut forms = vec![form("put", "Put into the zone", vec![here(), wanted, under.clone()])];
    if list(&name["records"]).next().is_some() {
        let clear = form("clear", "Remove all records", vec![here()]);
        forms.push(Form { danger: true, ..clear });
    }
    let stands = Section {
        title: text(&name["name"]),
        help: "What stands there is replaced by what you put there.".into(),
        forms,
        ..Section::default()
    };
    let way = |way: &Value| {
        let addresses: Vec<String> = list(&way["addresses"]).map(text).collect();
        Row { cells: vec![Cell::code(addresses.join("\n")), text(&way["port"]).into()], forms: Vec::new() }
    };
    let mut help = match &found["dnssec"] {
        Value::String(security) => format!("DNSSEC: {security}. "),
        _ => String::new(),
    };
    for what in ["error", "remedy"] {
        if let Some(said) = found[what].as_str() {
            help.push_str(&format!("{said}. "));
        }
    }
    let readers = Section {
        title: "What others find there".into(),
        help,
        columns: vec!["Addresses", "Port"],
        rows: list(&found["ways"]).map(way).collect(),
        empty: "No server.",
        ..Section::default()
    };
    let title = path.rsplit('/').next().unwrap_or(path).replace('-', "/");
    Ok(visit.page(&title, "names", me["operator"] == true, vec![stands, readers]))
}

async fn certificates(visit: &Visit<'_>, operates: bool) -> Result<Vec<Section>, Trouble> {
    let all = visit.get("/v1/certificates").await?;
    let row = |kept: &Value| {
        let names: Vec<String> = list(&kept["names"]).map(text).collect();
        let number = text(&kept["id"]);
        let mut forms = Vec::new();
        if operates && kept["state"] == "waiting" {
            forms.push(button("approve", "Sign", &kept["id"], &number, false));
        }
        if kept["state"] != "revoked" {
            forms.push(button("strike-off", "Strike off", &kept["id"], &number, true));
        }
        let chain = Cell { fold: "show", ..Cell::code(text(&kept["chain"])) };
        let names = Cell::code(names.join("\n"));
        let cells =
            vec![number.into(), text(&kept["member"]).into(), names, text(&kept["state"]).into(), chain];
        Row { cells, forms }
    };
    let kept = Section {
        title: if operates { "Of all members" } else { "Yours" }.into(),
        columns: vec!["Number", "Member", "Names", "State", "Chain (PEM)"],
        rows: list(&all).map(row).collect(),
        empty: "None.",
        ..Section::default()
    };
    let request = Field::line(
        "request",
        "Request (PKCS#10, PEM)",
        "roamgate pki request writes it; the key stays where it is",
    );
    let ask = Section {
        title: "Ask for one".into(),
        help: "The first with its names waits for the operator; later ones for the same names are signed at once.".into(),
        forms: vec![form("certificate", "Ask", vec![request.of(Kind::Lines)])],
        ..Section::default()
    };
    Ok(vec![kept, ask])
}

async fn people(visit: &Visit<'_>) -> Result<Vec<Section>, Trouble> {
    let (users, keys) = (visit.get("/v1/users").await?, visit.get("/v1/keys").await?);
    let user = |user: &Value| Row {
        cells: vec![text(&user["name"]).into(), text(&user["scope"]).into(), day(&user["since"]).into()],
        forms: vec![button("remove-user", "Remove", &user["name"], &text(&user["name"]), true)],
    };
    let scope = || {
        Field::line(
            "scope",
            "May",
            "read: look; write: change names and ask for certificates; admin: everything",
        )
    };
    let choice = |value: &str| scope().of(Kind::Choice(SCOPES)).filled(value);
    let people = Section {
        title: "People".into(),
        columns: vec!["Name", "May", "Since"],
        rows: list(&users).map(user).collect(),
        empty: "Nobody signs in with a name.",
        forms: vec![form(
            "user",
            "Add",
            vec![
                Field::line("name", "Name", ""),
                Field::line("password", "Password", "12 characters or more").of(Kind::Password),
                choice("write"),
            ],
        )],
        ..Section::default()
    };
    let key = |key: &Value| {
        let (id, revoked) = (text(&key["id"]), key["revoked"] == true);
        let state = if revoked { "revoked" } else { "" };
        let forms =
            if revoked { Vec::new() } else { vec![button("revoke-key", "Revoke", &key["id"], &id, true)] };
        Row {
            cells: vec![Cell::code(id), text(&key["label"]).into(), text(&key["scope"]).into(), state.into()],
            forms,
        }
    };
    let keys = Section {
        title: "Keys for programs".into(),
        columns: vec!["Key", "Used by", "May", "State"],
        rows: list(&keys).map(key).collect(),
        empty: "None.",
        forms: vec![form(
            "key",
            "Make a key",
            vec![Field::line("label", "Used by", "hotspot in the attic"), choice("write")],
        )],
        ..Section::default()
    };
    Ok(vec![people, keys])
}

async fn zone(visit: &Visit<'_>, operates: bool) -> Result<Vec<Section>, Trouble> {
    let zone = visit.get("/v1/zone").await?;
    let lines = |what: &str| list(&zone[what]).map(text).collect::<Vec<_>>().join("\n");
    let fact = |name: &str, value: Cell| Row { cells: vec![name.into(), value], forms: Vec::new() };
    let facts = Section {
        title: text(&zone["zone"]),
        columns: vec!["", ""],
        rows: vec![
            fact("Serial number", text(&zone["serial"]).into()),
            fact("Records", text(&zone["records"]).into()),
            fact("For the parent zone (DS)", Cell::code(lines("ds"))),
            fact("For [discovery] trust_anchor (DNSKEY)", Cell::code(lines("dnskey"))),
        ],
        ..Section::default()
    };
    if !operates {
        return Ok(vec![facts]);
    }
    let keys = visit.get("/v1/zone/keys").await?;
    let row = |key: &Value| {
        let tag = text(&key["tag"]);
        let mut forms = Vec::new();
        if key["state"] != "signing" {
            forms.push(button("sign", "Sign with it", &key["id"], &tag, false));
        }
        forms.push(button("remove-zone-key", "Remove", &key["id"], &tag, true));
        Row {
            cells: vec![
                tag.into(),
                text(&key["state"]).into(),
                day(&key["since"]).into(),
                Cell::code(text(&key["ds"])),
            ],
            forms,
        }
    };
    let keys = Section {
        title: "Keys that sign it".into(),
        help: "To roll: make one, have the parent or the members know it, sign with it, and two hours later remove the other.".into(),
        columns: vec!["Tag", "State", "Since", "DS"],
        rows: list(&keys).map(row).collect(),
        forms: vec![form("zone-key", "Make another key", Vec::new())],
        ..Section::default()
    };
    Ok(vec![facts, keys])
}

async fn audit(visit: &Visit<'_>) -> Result<Vec<Section>, Trouble> {
    let all = visit.get("/v1/audit").await?;
    let row = |line: &Value| Row {
        cells: vec![
            day(&line["at"]).into(),
            text(&line["member"]).into(),
            text(&line["key"]).into(),
            text(&line["what"]).into(),
            Cell::code(text(&line["detail"])),
        ],
        forms: Vec::new(),
    };
    Ok(vec![Section {
        title: "Who did what".into(),
        help: "The newest first.".into(),
        columns: vec!["When", "Member", "By", "What", "To what"],
        rows: list(&all).map(row).collect(),
        empty: "Nothing.",
        ..Section::default()
    }])
}

async fn members(visit: &Visit<'_>) -> Result<Vec<Section>, Trouble> {
    let all = visit.get("/v1/members").await?;
    let row = |member: &Value| {
        let (id, name) = (text(&member["id"]), text(&member["name"]));
        let (operator, revoked) = (member["operator"] == true, member["revoked"] == true);
        let role = match (operator, revoked) {
            (_, true) => "revoked",
            (true, _) => "operator",
            _ => "member",
        };
        let forms = match operator || revoked {
            true => Vec::new(),
            false => vec![button("revoke-member", "Revoke", &member["id"], &name, true)],
        };
        Row { cells: vec![id.into(), name.into(), role.into()], forms }
    };
    let list_of = Section {
        title: "Members of the federation".into(),
        help: "Revoking one ends its keys, names and certificates at once.".into(),
        columns: vec!["Number", "Name", ""],
        rows: list(&all).map(row).collect(),
        forms: vec![form("member", "Make a member", vec![Field::line("name", "Name", "As people know it")])],
        ..Section::default()
    };
    let wanted = vec![
        Field::line("member", "Member", "Its number"),
        Field::line("what", "NetID or JoinEUIs", "C00ABC, 70B3D57ED0000001, or a block: 70B3D57ED0000000/36"),
    ];
    let grant = Section {
        title: "Grant without a proof".into(),
        help: "For what you know to be a member's.".into(),
        forms: vec![form("grant", "Grant", wanted)],
        ..Section::default()
    };
    Ok(vec![list_of, waiting(visit, true).await?, grant])
}
