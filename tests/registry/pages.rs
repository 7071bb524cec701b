//! The pages as a browser without a mind of its own gets them: signing in, forms, and forms of others.

use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};

use crate::office::{Office, leads_to};

const A: &str = "70B3D57ED0000000/40";
const PASSWORD: &str = "correct horse battery";

/// A browser: a cookie, and the text of the page where it is.
struct Browser<'a> {
    office: &'a Office,
    cookie: Option<String>,
    page: String,
}

impl<'a> Browser<'a> {
    fn new(office: &'a Office) -> Browser<'a> {
        Browser { office, cookie: None, page: String::new() }
    }

    async fn go(&mut self, method: Method, path: &str, form: &[(&str, &str)]) -> StatusCode {
        let (mut method, mut path, mut form) = (method, path.to_owned(), Some(form));
        for _ in 0..3 {
            let url = format!("http://{}{path}", self.office.running.api.address);
            let mut request = self.office.http.request(method.clone(), url);
            if let Some(cookie) = &self.cookie {
                request = request.header(header::COOKIE, cookie);
            }
            if let Some(form) = form.filter(|_| method == Method::POST) {
                let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
                request =
                    request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded").body(body);
            }
            let response = request.send().await.unwrap();
            if let Some(cookie) = response.headers().get(header::SET_COOKIE) {
                let cookie = cookie.to_str().unwrap();
                assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
                self.cookie = cookie.split(';').next().map(ToOwned::to_owned);
            }
            let status = response.status();
            if status != StatusCode::SEE_OTHER {
                self.page = response.text().await.unwrap();
                return status;
            }
            path = response.headers()[header::LOCATION].to_str().unwrap().to_owned();
            (method, form) = (Method::GET, None);
        }
        panic!("led around in circles")
    }

    async fn open(&mut self, path: &str) {
        assert_eq!(self.go(Method::GET, path, &[]).await, StatusCode::OK, "{path}: {}", self.page);
    }

    /// Send a form from the page where it is.
    async fn send(&mut self, deed: &str, form: &[(&str, &str)]) {
        let proof =
            self.page.split("name=\"proof\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        let form: Vec<(&str, &str)> = form.iter().copied().chain([("proof", &*proof)]).collect();
        assert_eq!(
            self.go(Method::POST, &format!("/do/{deed}"), &form).await,
            StatusCode::OK,
            "{}",
            self.page
        );
    }

    #[track_caller]
    fn shows(&self, words: &str) {
        assert!(self.page.contains(words), "no {words:?} in {}", self.page);
    }

    async fn sign_in(&mut self, name: &str, password: &str) -> StatusCode {
        self.go(Method::POST, "/signin", &[("name", name), ("password", password)]).await
    }

    async fn sign_in_with(&mut self, key: &str) {
        assert_eq!(self.go(Method::POST, "/signin", &[("key", key)]).await, StatusCode::OK, "{}", self.page);
    }
}

/// The key that a page shows once.
fn shown_once(page: &str) -> String {
    let from = page.find("rg_").unwrap();
    page[from..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}

#[tokio::test]
async fn a_federation_is_run_by_its_pages() {
    let office = Office::signing().await;
    let mut operator = Browser::new(&office);
    operator.sign_in_with(&office.operator).await;
    operator.open("/pages/members").await;
    operator.send("member", &[("name", "Acme <b>")]).await;
    operator.shows("Acme &#60;b&#62;");
    let key = shown_once(&operator.page);
    operator.send("grant", &[("member", "2"), ("what", "C00ABC")]).await;
    operator.send("grant", &[("member", "2"), ("what", A)]).await;
    operator.shows("It is granted.");
    operator.send("grant", &[("member", "x"), ("what", A)]).await;
    operator.shows("its number");

    let mut member = Browser::new(&office);
    member.sign_in_with(&key).await;
    member.shows("c00abc.netids.iotroam.example");
    assert!(!member.page.contains("/pages/members"), "a member does not see what the operator does");
    member.send("put", &[("path", "net-ids/C00ABC"), ("records", "60 A 192.0.2.1\r\n"), ("under", "")]).await;
    member.shows("It is in the zone.");
    member.shows("60 A 192.0.2.1");
    member.shows("DNSSEC: secure");
    leads_to(office.net("C00ABC").await, "192.0.2.1");
    member.send("put", &[("path", "net-ids/C00ABC"), ("records", "A 300.0.0.1")]).await;
    member.shows("role=\"alert\"");
    member.open("/at/join-euis/70B3D57ED0000000-40").await;
    let host = "CNAME c00abc.netids.iotroam.example";
    member.send("put", &[("path", "join-euis/70B3D57ED0000000-40"), ("records", host)]).await;
    leads_to(office.join("70B3D57ED0000001", None).await, "192.0.2.1");
    let moved =
        [("join_eui", "70B3D57ED0000001"), ("dev_euis", "0102030405060708"), ("records", "A 192.0.2.9")];
    member.open("/pages/names").await;
    member.send("move", &moved).await;
    leads_to(office.join("70B3D57ED0000001", Some("0102030405060708")).await, "192.0.2.9");

    member.open("/pages/people").await;
    member.send("user", &[("name", "Ann"), ("password", "short"), ("scope", "write")]).await;
    member.shows("12 to 200 characters");
    member.send("user", &[("name", "Ann"), ("password", PASSWORD), ("scope", "write")]).await;
    member.send("key", &[("label", "attic"), ("scope", "write")]).await;
    assert!(shown_once(&member.page).len() > 60);
    member.open("/pages/people").await;
    assert!(!member.page.contains("rg_"), "a key is shown once");

    let request = roamgate::pki::request::make("node", &["c00abc.netids.iotroam.example".into()]).unwrap().0;
    member.open("/pages/certificates").await;
    member.send("certificate", &[("request", &request.replace('\n', "\r\n"))]).await;
    member.shows("waiting");
    operator.open("/pages/certificates").await;
    operator.send("approve", &[("id", "1")]).await;
    operator.shows("BEGIN CERTIFICATE");
    operator.open("/pages/zone").await;
    operator.shows("IN DNSKEY");
    operator.send("zone-key", &[]).await;
    operator.shows("made");
    operator.open("/pages/audit").await;
    operator.shows("certificate approved");

    let mut ann = Browser::new(&office);
    assert_eq!(ann.sign_in("Ann", PASSWORD).await, StatusCode::OK);
    ann.open("/pages/people").await;
    ann.send("key", &[("label", "x"), ("scope", "admin")]).await;
    ann.shows("your key may not do this");
    operator.open("/pages/members").await;
    operator.send("revoke-member", &[("id", "2")]).await;
    ann.open("/pages/names").await;
    ann.shows("Sign in with a key");
}

#[tokio::test]
async fn forms_of_others_do_nothing_and_guesses_cost() {
    let office = Office::open().await;
    let key = office.member("One", "C00ABC", A).await;
    let mut browser = Browser::new(&office);
    assert_eq!(browser.go(Method::GET, "/pages/names", &[]).await, StatusCode::OK);
    browser.shows("Sign in with a key");
    browser.sign_in_with(&key).await;
    let form = [("path", "net-ids/C00ABC"), ("records", "A 192.0.2.66"), ("proof", "guessed")];
    assert_eq!(browser.go(Method::POST, "/do/put", &form).await, StatusCode::FORBIDDEN);
    let name = office.done(&key, Method::GET, "/v1/net-ids/C00ABC", Value::Null).await;
    assert_eq!(name["records"], json!([]));
    browser.open("/pages/names").await;
    assert_eq!(browser.go(Method::GET, "/pages/nothing", &[]).await, StatusCode::NOT_FOUND);
    let page = browser.office.http.get(format!("http://{}/pages/names", office.running.api.address)).send();
    assert_eq!(page.await.unwrap().headers()[header::LOCATION], "/signin");

    let user = json!({ "name": "Ann", "password": PASSWORD, "scope": "admin" });
    office.done(&key, Method::POST, "/v1/users", user).await;
    let mut thief = Browser::new(&office);
    assert_eq!(thief.sign_in("Ann", "wrong").await, StatusCode::UNAUTHORIZED);
    assert_eq!(thief.sign_in("Nobody", PASSWORD).await, StatusCode::UNAUTHORIZED);
    thief.shows("That is not right");
    let mut last = StatusCode::OK;
    for _ in 0..40 {
        last = thief.go(Method::POST, "/signin", &[("key", "rg_0123456789abcdef_00")]).await;
    }
    assert_eq!(last, StatusCode::TOO_MANY_REQUESTS);
}
