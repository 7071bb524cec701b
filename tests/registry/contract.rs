//! The API against its own description, by a program that others wrote: Schemathesis makes requests of all kinds from the OpenAPI document,
//! good and bad, and looks at every answer.
//!
//! Wants `schemathesis` (from Python's packages) on the PATH, so it runs where it is asked for: `cargo test --test registry -- --ignored`.
//! `.ci/run` does.

use std::process::Command;

use crate::office::Office;

const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,ignored_auth,unsupported_method";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "wants Schemathesis"]
async fn no_request_upsets_the_registry_and_every_answer_is_as_described() {
    let office = Office::signing_and_handing_out().await;
    office.member("One", "C00ABC", "70B3D57ED0000000/40").await;
    let api = format!("http://{}", office.running.api.address);
    let mut command = Command::new("schemathesis");
    command
        .args(["run", &format!("{api}/v1/openapi.json"), "--url", &api, "--checks", CHECKS])
        .args(["--max-examples", "15", "--seed", "7", "--workers", "2", "--no-color"])
        // its own folder for what it remembers
        .current_dir(office.folder.path())
        .arg("--header")
        .arg(format!("Authorization: Bearer {}", office.operator));
    let done = tokio::task::spawn_blocking(move || command.output()).await.unwrap();
    let done = done.unwrap_or_else(|error| panic!("schemathesis: {error} (pip install schemathesis)"));
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{said}\n{}", String::from_utf8_lossy(&done.stderr));
    // it has tried something
    assert!(said.contains("generated"), "{said}");
    println!("{said}");
}
