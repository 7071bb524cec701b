//! What somebody publishes as the newest version: understood, and then the same when it is written again, or refused.

use roamgate::update;

pub fn fuzz(data: &[u8]) {
    if let Ok(newest) = update::read(data) {
        let again = serde_json::to_vec(&newest).expect("a version is JSON");
        assert_eq!(update::read(&again).expect("what was read is read again"), newest);
    }
}
