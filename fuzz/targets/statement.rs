//! A signed statement of another network, as a file.

use roamgate::tls::signed::Signed;
use roamgate::usage::{self, Statement};

pub fn fuzz(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let inside = serde_json::from_str::<Signed>(text).map(|signed| signed.text);
    if let Ok(statement) = Statement::read(inside.as_deref().unwrap_or(text)) {
        let again = Statement::read(&statement.text()).expect("what was read is read again");
        assert_eq!(again, statement);
        let _ = (usage::hash(&statement.text()), usage::compare(&statement, &statement.traffic));
    }
}
