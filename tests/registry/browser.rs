//! The pages in a real browser: Chromium without a window, driven by WebDriver (W3C), with clicks, with the keyboard alone, and at the width
//! of a telephone.
//!
//! Wants Debian's packages chromium and chromium-driver, so it runs where it is asked for: `cargo test --test registry -- --ignored`.
//! `.ci/run` does. With ROAMGATE_WRITE=1 it makes the pictures of docs/federation.md.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use reqwest::Method;
use serde_json::{Value, json};

use crate::office::{Office, free, leads_to};

/// The name under which WebDriver hands out elements.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
const TAB: char = '\u{E004}';
const ENTER: char = '\u{E007}';

struct Driver {
    child: Child,
    at: String,
    http: reqwest::Client,
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Driver {
    async fn start() -> Driver {
        let at = free();
        let child = Command::new("chromedriver")
            .arg(format!("--port={}", at.port()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("chromedriver: {error} (Debian: apt-get install chromium chromium-driver)")
            });
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let driver = Driver { child, at: format!("http://{at}"), http };
        for _ in 0..200 {
            let status = driver.http.get(format!("{}/status", driver.at)).send().await;
            if status.is_ok_and(|status| status.status().is_success()) {
                return driver;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("chromedriver does not answer");
    }

    async fn ask(&self, method: Method, path: &str, body: Value) -> Result<Value, String> {
        let mut request = self.http.request(method.clone(), format!("{}{path}", self.at));
        if method == Method::POST {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap().text().await.unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        let value = answer["value"].clone();
        match value["error"].as_str() {
            Some(error) => Err(format!("{error}: {}", value["message"])),
            None => Ok(value),
        }
    }
}

/// A browser of its own, with its own cookies.
struct Browser<'a> {
    driver: &'a Driver,
    session: String,
    site: String,
}

impl<'a> Browser<'a> {
    async fn open(driver: &'a Driver, office: &Office, phone: bool) -> Browser<'a> {
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--window-size=1100,1000",
        ];
        let mut options = json!({ "args": arguments });
        if phone {
            options["mobileEmulation"] =
                json!({ "deviceMetrics": { "width": 360, "height": 760, "pixelRatio": 2.0 } });
        }
        let wanted = json!({ "capabilities": { "alwaysMatch": { "browserName": "chrome", "goog:chromeOptions": options } } });
        let session = driver.ask(Method::POST, "/session", wanted).await.unwrap();
        let session = session["sessionId"].as_str().unwrap().to_owned();
        let site = format!("http://{}", office.running.api.address);
        let browser = Browser { driver, session, site };
        browser.go("/").await;
        browser
    }

    async fn ask(&self, method: Method, path: &str, body: Value) -> Result<Value, String> {
        self.driver.ask(method, &format!("/session/{}{path}", self.session), body).await
    }

    async fn go(&self, path: &str) {
        let url = format!("{}{path}", self.site);
        self.ask(Method::POST, "/url", json!({ "url": url })).await.unwrap();
    }

    /// The element that XPath names, as soon as it is there.
    async fn find(&self, path: &str) -> String {
        let mut last = String::new();
        for _ in 0..100 {
            match self.ask(Method::POST, "/element", json!({ "using": "xpath", "value": path })).await {
                Ok(found) => return found[ELEMENT].as_str().unwrap().to_owned(),
                Err(error) => last = error,
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{path}: {last}\n{}", self.text().await);
    }

    async fn click(&self, path: &str) {
        let element = self.find(path).await;
        self.ask(Method::POST, &format!("/element/{element}/click"), json!({})).await.unwrap();
    }

    /// Press the button with this word.
    async fn press(&self, word: &str) {
        self.click(&format!("//button[normalize-space()='{word}']")).await;
    }

    /// Write into the field with this label, near the button with that word.
    async fn fill(&self, button: &str, label: &str, text: &str) {
        let form = format!("//form[.//button[normalize-space()='{button}']]");
        let field = format!("{form}//*[@id = {form}//label[normalize-space()='{label}']/@for]");
        let element = self.find(&field).await;
        self.ask(Method::POST, &format!("/element/{element}/clear"), json!({})).await.unwrap();
        self.ask(Method::POST, &format!("/element/{element}/value"), json!({ "text": text })).await.unwrap();
    }

    /// Type on the keyboard, wherever the focus is.
    async fn keys(&self, keys: &str) {
        let each = |key: char| {
            [json!({ "type": "keyDown", "value": key }), json!({ "type": "keyUp", "value": key })]
        };
        let actions: Vec<Value> = keys.chars().flat_map(each).collect();
        let body = json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": actions }] });
        self.ask(Method::POST, "/actions", body).await.unwrap();
    }

    /// What has the focus: the text of a link or button, or the name of a field.
    async fn focus(&self) -> String {
        let script = "const e = document.activeElement; return e.name || e.textContent.trim()";
        self.script(script).await.as_str().unwrap_or_default().to_owned()
    }

    /// Tab until this has the focus.
    async fn tab_to(&self, what: &str) {
        let mut passed = Vec::new();
        for _ in 0..60 {
            self.keys(&TAB.to_string()).await;
            let focus = self.focus().await;
            if focus == what {
                return;
            }
            passed.push(focus);
        }
        panic!("the keyboard does not reach {what:?}: {passed:?}");
    }

    async fn script(&self, script: &str) -> Value {
        self.ask(Method::POST, "/execute/sync", json!({ "script": script, "args": [] })).await.unwrap()
    }

    async fn text(&self) -> String {
        self.script("return document.body.innerText").await.as_str().unwrap_or_default().to_owned()
    }

    async fn shows(&self, words: &str) {
        self.find(&format!("//*[contains(text(), \"{words}\")]")).await;
    }

    /// Nothing is cut off at the right, every field has a label, and every button is large enough for a thumb.
    async fn is_fit(&self, what: &str) {
        let wide = self.script("return document.documentElement.scrollWidth - window.innerWidth").await;
        assert!(wide.as_i64().unwrap() <= 0, "{what} is {wide} pixels too wide");
        let nameless = "return [...document.querySelectorAll('input:not([type=hidden]),textarea,select')]\
                        .filter(e => !e.labels.length).map(e => e.name)";
        assert_eq!(self.script(nameless).await, json!([]), "{what}: fields without a label");
        let small = "return [...document.querySelectorAll('main button')].map(e => e.getBoundingClientRect())\
                     .filter(r => r.height < 32 || r.width < 32 || r.height > r.width * 2).length";
        assert_eq!(self.script(small).await, json!(0), "{what}: buttons that are too small, or squeezed");
    }

    async fn picture(&self, name: &str) {
        let picture = self.ask(Method::GET, "/screenshot", Value::Null).await.unwrap();
        let bytes = BASE64_STANDARD.decode(picture.as_str().unwrap()).unwrap();
        assert!(bytes.starts_with(b"\x89PNG"));
        if std::env::var_os("ROAMGATE_WRITE").is_some() {
            let to = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
            std::fs::write(to, bytes).unwrap();
        }
    }

    async fn close(self) {
        self.ask(Method::DELETE, "", Value::Null).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "wants Chromium"]
async fn a_federation_is_run_in_a_browser() {
    let office = Office::signing().await;
    let driver = Driver::start().await;

    let operator = Browser::open(&driver, &office, false).await;
    operator.picture("registry-signin.png").await;
    operator.fill("Sign in with a key", "Key", &office.operator).await;
    operator.press("Sign in with a key").await;
    operator.click("//nav//a[.='Members']").await;
    operator.fill("Make a member", "Name", "Acme").await;
    operator.press("Make a member").await;
    operator.shows("shown once").await;
    let page = operator.text().await;
    let key: String = page[page.find("rg_").unwrap()..]
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
        .collect();
    for what in ["C00ABC", "70B3D57ED0000000/40"] {
        operator.fill("Grant", "Member", "2").await;
        operator.fill("Grant", "NetID or JoinEUIs", what).await;
        operator.press("Grant").await;
        operator.shows("It is granted.").await;
    }
    for (name, words) in
        [("Certificates", "Of all members"), ("Zone", "For the parent zone"), ("Log", "claim granted")]
    {
        operator.click(&format!("//nav//a[.='{name}']")).await;
        operator.shows(words).await;
        operator.is_fit(name).await;
    }
    operator.picture("registry-log.png").await;
    operator.press("Sign out").await;
    operator.shows("Sign in with a key").await;
    operator.close().await;

    // with the keyboard alone
    let member = Browser::open(&driver, &office, false).await;
    member.keys(&TAB.to_string()).await;
    assert_eq!(member.focus().await, "To the content", "the first stop leads past the menu");
    member.tab_to("key").await;
    member.keys(&format!("{key}{ENTER}")).await;
    member.shows("c00abc.netids.iotroam.example").await;
    member.tab_to("C00ABC").await;
    member.keys(&ENTER.to_string()).await;
    member.shows("What others find there").await;
    member.tab_to("records").await;
    member.keys("AAAA 2001:db8::1").await;
    member.tab_to("Put into the zone").await;
    member.keys(&ENTER.to_string()).await;
    member.shows("It is in the zone.").await;
    member.shows("DNSSEC: secure").await;
    leads_to(office.net("C00ABC").await, "2001:db8::1");
    member.picture("registry-name.png").await;
    member.go("/pages/names").await;
    member.is_fit("names").await;
    member.picture("registry-names.png").await;
    member.close().await;

    // in the attic, with a telephone
    let phone = Browser::open(&driver, &office, true).await;
    phone.is_fit("signing in").await;
    phone.fill("Sign in with a key", "Key", &key).await;
    phone.press("Sign in with a key").await;
    phone.shows("Ask for more").await;
    for (page, words) in [
        ("/pages/names", "Ask for more"),
        ("/at/net-ids/C00ABC", "What others find there"),
        ("/pages/certificates", "Ask for one"),
        ("/pages/people", "Keys for programs"),
        ("/pages/zone", "Serial number"),
        ("/pages/audit", "Who did what"),
    ] {
        phone.go(page).await;
        phone.shows(words).await;
        phone.is_fit(page).await;
    }
    phone.go("/at/net-ids/C00ABC").await;
    phone.picture("registry-phone.png").await;
    phone.press("Remove all records").await;
    phone.shows("It is gone from the zone.").await;
    phone.close().await;
}
