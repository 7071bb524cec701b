//! What the API understands, as an OpenAPI 3.1 document: the same table for programs, for people and for the tests.

use serde_json::{Map, Value, json};

/// One thing that may be asked.
pub struct Route {
    /// HTTP method, small letters.
    pub method: &'static str,
    /// Path, with its parameters in braces.
    pub path: &'static str,
    /// What it does.
    pub what: &'static str,
    /// Least scope of the key; `None`: no key is wanted.
    pub scope: Option<&'static str>,
    /// Schema of the body.
    pub body: Option<&'static str>,
    /// Status of success, and the schema of its answer.
    pub answer: (u16, Option<&'static str>),
}

const fn route(
    method: &'static str,
    path: &'static str,
    what: &'static str,
    scope: Option<&'static str>,
    body: Option<&'static str>,
    answer: (u16, Option<&'static str>),
) -> Route {
    Route { method, path, what, scope, body, answer }
}

const READ: Option<&str> = Some("read");
const WRITE: Option<&str> = Some("write");
const ADMIN: Option<&str> = Some("admin");
const NET: &str = "/v1/net-ids/{net_id}";
const JOIN: &str = "/v1/join-euis/{join_eui}";
const DEVICE: &str = "/v1/join-euis/{join_eui}/devices/{dev_eui}";

/// Everything that may be asked.
pub const ROUTES: &[Route] = &[
    route("get", "/v1/me", "Who asks, and what he may do", READ, None, (200, Some("Me"))),
    route("get", "/v1/members", "Members of the federation", READ, None, (200, Some("Members"))),
    route(
        "post",
        "/v1/members",
        "Make a member; its first key is shown once (operator)",
        ADMIN,
        Some("NewMember"),
        (201, Some("Welcome")),
    ),
    route(
        "delete",
        "/v1/members/{id}",
        "Revoke a member: keys, claims, records and certificates (operator)",
        ADMIN,
        None,
        (204, None),
    ),
    route("get", "/v1/keys", "Keys of the caller's member", READ, None, (200, Some("Keys"))),
    route("post", "/v1/keys", "Make a key; it is shown once", ADMIN, Some("NewKey"), (201, Some("ShownKey"))),
    route("delete", "/v1/keys/{key}", "Revoke a key", ADMIN, None, (204, None)),
    route(
        "get",
        "/v1/claims",
        "NetIDs and JoinEUIs of the caller's member",
        READ,
        None,
        (200, Some("Claims")),
    ),
    route(
        "post",
        "/v1/claims",
        "Grant a NetID or JoinEUIs to a member (operator)",
        ADMIN,
        Some("NewClaim"),
        (204, None),
    ),
    route(
        "delete",
        "/v1/claims/{what}",
        "Give back a NetID or JoinEUIs, with all that stands there (operator: take away)",
        ADMIN,
        None,
        (204, None),
    ),
    route(
        "get",
        "/v1/claims/waiting",
        "What the caller's member would like to have (operator: all members)",
        READ,
        None,
        (200, Some("Wishes")),
    ),
    route(
        "post",
        "/v1/claims/waiting",
        "Ask for a NetID or JoinEUIs; the answer has the TXT record that proves the domain",
        ADMIN,
        Some("NewWish"),
        (201, Some("Wish")),
    ),
    route("delete", "/v1/claims/waiting/{id}", "Withdraw a wish", ADMIN, None, (204, None)),
    route(
        "post",
        "/v1/claims/waiting/{id}/prove",
        "Look for the TXT record",
        ADMIN,
        None,
        (200, Some("Wish")),
    ),
    route(
        "post",
        "/v1/claims/waiting/{id}/fulfil",
        "Grant a proven wish (operator)",
        ADMIN,
        None,
        (204, None),
    ),
    route(
        "post",
        "/v1/net-ids",
        "Have the next free NetID of the federation's own range, where it hands out NetIDs",
        ADMIN,
        None,
        (201, Some("Claim")),
    ),
    route("get", "/v1/users", "People of the caller's member", READ, None, (200, Some("Users"))),
    route("post", "/v1/users", "Add somebody who signs in to the pages", ADMIN, Some("NewUser"), (201, None)),
    route("delete", "/v1/users/{name}", "Remove somebody", ADMIN, None, (204, None)),
    route("get", NET, "What stands at a NetID's name", READ, None, (200, Some("Name"))),
    route("put", NET, "Replace what stands there", WRITE, Some("Records"), (200, Some("Name"))),
    route("delete", NET, "Remove what stands there", WRITE, None, (204, None)),
    route("get", JOIN, "What stands at a JoinEUI's name, or at a block's", READ, None, (200, Some("Name"))),
    route("put", JOIN, "Replace what stands there", WRITE, Some("Records"), (200, Some("Name"))),
    route("delete", JOIN, "Remove what stands there", WRITE, None, (204, None)),
    route(
        "post",
        "/v1/join-euis/{join_eui}/devices",
        "Put the same records at many devices of a JoinEUI",
        WRITE,
        Some("Batch"),
        (200, Some("Done")),
    ),
    route("get", DEVICE, "What stands at a device's name", READ, None, (200, Some("Name"))),
    route(
        "put",
        DEVICE,
        "Replace what stands there: the device's join server is elsewhere",
        WRITE,
        Some("Records"),
        (200, Some("Name")),
    ),
    route("delete", DEVICE, "Remove what stands there: its JoinEUI counts again", WRITE, None, (204, None)),
    route(
        "get",
        "/v1/net-ids/{net_id}/found",
        "What readers of the DNS find at a NetID's name, and what DNSSEC says of it",
        READ,
        None,
        (200, Some("Found")),
    ),
    route(
        "get",
        "/v1/join-euis/{join_eui}/found",
        "The same at a JoinEUI's name; of a block, at its first",
        READ,
        None,
        (200, Some("Found")),
    ),
    route(
        "get",
        "/v1/join-euis/{join_eui}/devices/{dev_eui}/found",
        "The same at a device's name",
        READ,
        None,
        (200, Some("Found")),
    ),
    route(
        "get",
        "/v1/records",
        "All records of the caller's member, page by page",
        READ,
        None,
        (200, Some("Page")),
    ),
    route(
        "get",
        "/v1/certificates",
        "Certificates of the caller's member (operator: all)",
        READ,
        None,
        (200, Some("Certificates")),
    ),
    route(
        "post",
        "/v1/certificates",
        "Ask for a certificate; the first with its names waits for the operator",
        WRITE,
        Some("Asked"),
        (201, Some("Certificate")),
    ),
    route("get", "/v1/certificates/{id}", "One certificate", READ, None, (200, Some("Certificate"))),
    route(
        "post",
        "/v1/certificates/{id}/approve",
        "Sign it (operator)",
        ADMIN,
        None,
        (200, Some("Certificate")),
    ),
    route("post", "/v1/certificates/{id}/revoke", "Strike it off", ADMIN, None, (200, Some("Certificate"))),
    route(
        "get",
        "/v1/crl.pem",
        "The list of revoked certificates (RFC 5280), for [backend] crls",
        None,
        None,
        (200, None),
    ),
    route(
        "get",
        "/v1/zone",
        "The zone: serial number, DS for its parent, DNSKEY for trust anchors",
        READ,
        None,
        (200, Some("Zone")),
    ),
    route(
        "get",
        "/v1/zone/keys",
        "Keys that sign the zone, or will (operator)",
        READ,
        None,
        (200, Some("ZoneKeys")),
    ),
    route(
        "post",
        "/v1/zone/keys",
        "Make another key, which is not in the zone yet (operator)",
        ADMIN,
        None,
        (201, None),
    ),
    route(
        "post",
        "/v1/zone/keys/{id}/sign",
        "Have a key sign from now on (operator)",
        ADMIN,
        None,
        (204, None),
    ),
    route(
        "delete",
        "/v1/zone/keys/{id}",
        "Remove a key, once readers know the other one (operator)",
        ADMIN,
        None,
        (204, None),
    ),
    route("get", "/v1/audit", "Who did what (a member sees its own lines)", READ, None, (200, Some("Lines"))),
    route("get", "/v1/openapi.json", "This document", None, None, (200, None)),
];

fn text(description: &str) -> Value {
    json!({ "type": "string", "description": description })
}

fn object(fields: &[(&str, Value)], required: &[&str]) -> Value {
    let properties: Map<String, Value> =
        fields.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

fn list(of: &str) -> Value {
    json!({ "type": "array", "items": { "$ref": format!("#/components/schemas/{of}") } })
}

fn schemas() -> Value {
    let number = || json!({ "type": "integer" });
    let boolean = || json!({ "type": "boolean" });
    let eui = || json!({ "type": "string", "pattern": "^[0-9A-Fa-f]{16}$" });
    let scope = json!({ "type": "string", "enum": ["read", "write", "admin"] });
    let name = json!({ "type": "string", "minLength": 1, "maxLength": 80 });
    let zone_key_state = json!({ "type": "string", "enum": ["made", "signing"] });
    let net_id = json!({ "type": "string", "pattern": "^[0-9A-Fa-f]{6}$" });
    let block = || json!({ "type": "string", "pattern": "^[0-9A-Fa-f]{16}(/[0-9]{1,2})?$" });
    let record = object(
        &[
            (
                "type",
                json!({ "type": "string", "enum": ["A", "AAAA", "CNAME", "DS", "NAPTR", "NS", "SRV", "TLSA"] }),
            ),
            (
                "data",
                json!({ "type": "string", "maxLength": 1024, "description": "As in a zone file; names are full names" }),
            ),
            ("ttl", json!({ "type": "integer", "minimum": 30, "maximum": 86400, "default": 300 })),
        ],
        &["type", "data"],
    );
    let way = json!({ "type": "object", "properties": {
        "addresses": { "type": "array", "items": { "type": "string" } },
        "port": number(),
        "path": { "type": "string" },
    } });
    let stands = object(
        &[
            ("type", text("Of a record that a member has put there, or TXT of the registry's own")),
            ("data", text("As in a zone file")),
            ("ttl", number()),
        ],
        &["type", "data", "ttl"],
    );
    json!({
        "Trouble": object(&[("error", text("What is wrong")), ("remedy", text("What to do about it"))], &["error", "remedy"]),
        "Record": record,
        "Stands": stands,
        "Records": object(&[("records", list("Record"))], &["records"]),
        "Name": object(&[("name", text("In the DNS")), ("records", list("Stands"))], &["name", "records"]),
        "Page": object(&[("names", list("Name")), ("after", text("Where the next page begins"))], &["names"]),
        "Batch": object(
            &[
                ("dev_euis", json!({ "type": "array", "items": eui(), "minItems": 1, "maxItems": 10000 })),
                ("records", list("Record")),
            ],
            &["dev_euis", "records"],
        ),
        "Done": object(&[("devices", number())], &["devices"]),
        "Member": object(
            &[("id", number()), ("name", text("What it is called")), ("operator", boolean()), ("revoked", boolean())],
            &["id", "name", "operator", "revoked"],
        ),
        "Members": list("Member"),
        "NewMember": object(&[("name", name.clone()), ("operator", boolean())], &["name"]),
        "Welcome": object(&[("id", number()), ("key", text("Shown once"))], &["id", "key"]),
        "Key": object(
            &[("id", text("Its public part")), ("label", text("Who uses it")), ("scope", scope.clone()), ("revoked", boolean())],
            &["id", "label", "scope", "revoked"],
        ),
        "Keys": list("Key"),
        "Me": object(
            &[
                ("member", number()),
                ("name", text("What it is called")),
                ("operator", boolean()),
                ("scope", scope.clone()),
                ("from", text("The address from which this was asked")),
                ("net_ids", text("NetIDs that the federation hands out, FIRST-LAST")),
            ],
            &["member", "name", "operator", "scope", "from"],
        ),
        "User": object(&[("name", text("To sign in")), ("scope", scope.clone()), ("since", number())], &["name", "scope", "since"]),
        "Users": list("User"),
        "NewUser": object(
            &[("name", name.clone()), ("password", json!({ "type": "string", "minLength": 12, "maxLength": 200 })), ("scope", scope.clone())],
            &["name", "password", "scope"],
        ),
        "Found": object(
            &[
                ("name", text("In the DNS")),
                ("ways", json!({ "type": "array", "items": way, "description": "Where its server is, the first to be tried first" })),
                ("dnssec", json!({ "type": ["string", "null"], "description": "secure, insecure, bogus or off" })),
                ("ttl", number()),
                ("cached", boolean()),
                ("took_ms", json!({ "type": "number" })),
                ("error", json!({ "type": ["string", "null"], "description": "Why nobody would use it" })),
                ("remedy", text("What to do about it")),
            ],
            &["name", "ways"],
        ),
        "NewKey": object(&[("label", name), ("scope", scope)], &["label", "scope"]),
        "ShownKey": object(&[("id", text("Its public part")), ("key", text("Shown once"))], &["id", "key"]),
        "Claim": object(&[("net_id", net_id.clone()), ("join_euis", text("A JoinEUI or a block")), ("name", text("In the DNS"))], &["name"]),
        "Claims": list("Claim"),
        "NewClaim": object(
            &[("member", number()), ("net_id", net_id.clone()), ("join_euis", block())],
            &["member"],
        ),
        "NewWish": object(
            &[("net_id", net_id.clone()), ("join_euis", block()), ("domain", text("One that people know to be the member's"))],
            &["domain"],
        ),
        "Wish": object(
            &[
                ("id", number()),
                ("member", number()),
                ("net_id", net_id),
                ("join_euis", text("A JoinEUI or a block")),
                ("organisation", text("To whom the IEEE has assigned them")),
                ("domain", text("In which the proof has to stand")),
                ("name", text("Where the TXT record has to stand")),
                ("text", text("What it has to say")),
                ("proven", number()),
                ("secure", boolean()),
            ],
            &["id", "member", "domain", "name", "text", "secure"],
        ),
        "Wishes": list("Wish"),
        "Asked": object(&[("request", text("PKCS#10, PEM"))], &["request"]),
        "Certificate": object(
            &[
                ("id", number()),
                ("member", number()),
                ("names", json!({ "type": "array", "items": { "type": "string" } })),
                ("state", json!({ "type": "string", "enum": ["waiting", "signed", "revoked"] })),
                ("serial", text("Hex digits")),
                ("chain", text("Leaf, then the intermediate: PEM")),
            ],
            &["id", "member", "names", "state"],
        ),
        "Certificates": list("Certificate"),
        "Zone": object(
            &[
                ("zone", text("Its name")),
                ("serial", number()),
                ("records", number()),
                ("ds", json!({ "type": "array", "items": text("For the parent zone") })),
                ("dnskey", json!({ "type": "array", "items": text("For [discovery] trust_anchor") })),
            ],
            &["zone", "serial", "records", "ds", "dnskey"],
        ),
        "Line": object(
            &[("at", number()), ("member", number()), ("key", text("Which key")), ("what", text("What was done")), ("detail", text("To what"))],
            &["at", "what", "detail"],
        ),
        "Lines": list("Line"),
        "ZoneKey": object(
            &[
                ("id", number()),
                ("state", zone_key_state),
                ("tag", number()),
                ("ds", text("For the parent zone")),
                ("since", number()),
            ],
            &["id", "state", "tag", "ds", "since"],
        ),
        "ZoneKeys": list("ZoneKey"),
    })
}

fn parameter(name: &str) -> Value {
    let schema = match name {
        "id" => json!({ "type": "integer", "format": "int64" }),
        "net_id" => json!({ "type": "string", "pattern": "^[0-9A-Fa-f]{6}$" }),
        "join_eui" => json!({
            "type": "string", "pattern": "^[0-9A-Fa-f]{16}(-[0-9]{1,2})?$",
            "description": "One JoinEUI, or a block as FIRST-BITS"
        }),
        "dev_eui" => json!({ "type": "string", "pattern": "^[0-9A-Fa-f]{16}$" }),
        _ => json!({ "type": "string" }),
    };
    json!({ "name": name, "in": "path", "required": true, "schema": schema })
}

fn operation(route: &Route) -> Value {
    let schema = |name: &str| json!({ "application/json": { "schema": { "$ref": format!("#/components/schemas/{name}") } } });
    let (status, answer) = route.answer;
    let mut done = json!({ "description": "Done" });
    if let Some(name) = answer {
        done["content"] = schema(name);
    }
    let mut responses = Map::new();
    responses.insert(status.to_string(), done);
    let trouble = json!({ "description": "Not done, and nothing changed", "content": schema("Trouble") });
    responses.insert("4XX".into(), trouble);
    let mut parameters: Vec<Value> = route
        .path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(parameter)
        .collect();
    let query = |name: &str, what: &str| json!({ "name": name, "in": "query", "required": false, "schema": { "type": "string" }, "description": what });
    if matches!(route.path, NET | JOIN | DEVICE) {
        parameters.push(query("under", "Labels of a service in front of the name, such as _443._tcp"));
    }
    if route.path == "/v1/records" {
        parameters.push(query("after", "As the page before says"));
    }
    let mut operation = json!({ "summary": route.what, "parameters": parameters, "responses": responses });
    match route.scope {
        Some(scope) => {
            operation["security"] = json!([{ "key": [] }]);
            operation["description"] = json!(format!("Wants a key of scope {scope} or higher."));
        }
        None => operation["security"] = json!([]),
    }
    if let Some(body) = route.body {
        operation["requestBody"] = json!({ "required": true, "content": schema(body) });
    }
    operation
}

/// The document.
pub fn document() -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        let at = paths.entry(route.path).or_insert_with(|| json!({}));
        at[route.method] = operation(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": "Roamgate registry", "version": env!("CARGO_PKG_VERSION") },
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "securitySchemes": { "key": { "type": "http", "scheme": "bearer", "bearerFormat": "rg_ID_SECRET" } },
        },
    })
}
