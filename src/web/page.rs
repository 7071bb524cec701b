//! What a page consists of, and how it is written down: sections with tables and forms, one template, one style sheet, no script.
//!
//! Rooms say what is on a page; how it looks is said here once. All text is escaped. Pages work without a mouse, at the width of a
//! telephone, and load nothing from elsewhere.

use askama::Template;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};

/// A page.
#[derive(Debug, Template, Default)]
#[template(path = "page.html")]
pub struct Page {
    /// Of the site.
    pub site: String,
    /// Of the page.
    pub title: String,
    /// Other pages.
    pub menu: Vec<Link>,
    /// Who is signed in, and the proof that his forms are ours; absent: nobody.
    pub visitor: Option<Visitor>,
    /// What came of what was just done.
    pub notice: Option<Notice>,
    /// What is on it.
    pub sections: Vec<Section>,
}

/// Somebody who has signed in.
#[derive(Debug, Clone, Default)]
pub struct Visitor {
    /// As he sees himself.
    pub name: String,
    /// Goes with each of his forms.
    pub proof: String,
}

/// A link.
#[derive(Debug, Clone)]
pub struct Link {
    /// Where to.
    pub to: String,
    /// What is there.
    pub text: String,
    /// It is this page.
    pub here: bool,
}

/// What came of what was just done.
#[derive(Debug, Clone)]
pub struct Notice {
    /// It was not done.
    pub bad: bool,
    /// In one sentence.
    pub text: String,
    /// What to do about it, or something to keep.
    pub more: String,
}

/// A part of a page.
#[derive(Debug, Default)]
pub struct Section {
    /// What it is about.
    pub title: String,
    /// What to know about it.
    pub help: String,
    /// Heads of columns; none: no table.
    pub columns: Vec<&'static str>,
    /// Lines of the table.
    pub rows: Vec<Row>,
    /// What is said where there are none.
    pub empty: &'static str,
    /// What can be done here.
    pub forms: Vec<Form>,
}

impl Section {
    /// Whether something can be done with a line of its table.
    fn acts(&self) -> bool {
        self.rows.iter().any(|row| !row.forms.is_empty())
    }
}

/// A line of a table.
#[derive(Debug, Default)]
pub struct Row {
    /// One for each column.
    pub cells: Vec<Cell>,
    /// What can be done with it.
    pub forms: Vec<Form>,
}

/// What stands in a column.
#[derive(Debug, Default)]
pub struct Cell {
    /// Text; its lines are kept apart.
    pub text: String,
    /// Where it leads to; empty: nowhere.
    pub to: String,
    /// Set like a program's text.
    pub code: bool,
    /// Kept folded under this word; empty: shown.
    pub fold: &'static str,
}

impl From<String> for Cell {
    fn from(text: String) -> Cell {
        Cell { text, ..Cell::default() }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Cell {
        text.to_owned().into()
    }
}

impl Cell {
    /// Text of a program.
    pub fn code(text: impl Into<String>) -> Cell {
        Cell { text: text.into(), code: true, ..Cell::default() }
    }
}

/// Something that can be done.
#[derive(Debug, Default)]
pub struct Form {
    /// Where it is sent.
    pub action: String,
    /// The word on its button.
    pub button: &'static str,
    /// What the button is for, where its word alone does not say; for readers of screens.
    pub label: String,
    /// It takes something away.
    pub danger: bool,
    /// What has to be said for it.
    pub fields: Vec<Field>,
}

/// Something that has to be said.
#[derive(Debug, Clone)]
pub struct Field {
    /// Its name in the form.
    pub name: &'static str,
    /// What is asked.
    pub label: &'static str,
    /// How it is asked.
    pub kind: Kind,
    /// What is filled in.
    pub value: String,
    /// An example, or a rule.
    pub hint: &'static str,
    /// It may stay empty.
    pub optional: bool,
}

/// How something is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// One line.
    Line,
    /// One line, not shown.
    Password,
    /// Several lines.
    Lines,
    /// One of these.
    Choice(&'static [&'static str]),
    /// Not asked.
    Hidden,
}

impl Field {
    /// One line.
    pub fn line(name: &'static str, label: &'static str, hint: &'static str) -> Field {
        Field { name, label, kind: Kind::Line, value: String::new(), hint, optional: false }
    }

    /// Asked this way.
    pub fn of(self, kind: Kind) -> Field {
        Field { kind, ..self }
    }

    /// With this filled in.
    pub fn filled(self, value: impl Into<String>) -> Field {
        Field { value: value.into(), ..self }
    }

    /// It may stay empty.
    pub fn optional(self) -> Field {
        Field { optional: true, ..self }
    }

    /// Not asked.
    pub fn hidden(name: &'static str, value: impl Into<String>) -> Field {
        Field::line(name, "", "").of(Kind::Hidden).filled(value)
    }
}

/// Nothing but ourselves: no script, no frame, no resource from elsewhere.
const POLICY: &str =
    "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

impl Page {
    /// As an answer.
    pub fn answer(&self, status: StatusCode) -> Response {
        match self.render() {
            Ok(text) => {
                let mut response = (status, Html(text)).into_response();
                let headers = response.headers_mut();
                for (name, value) in [
                    (header::CONTENT_SECURITY_POLICY, POLICY),
                    (header::CACHE_CONTROL, "no-store"),
                    (header::REFERRER_POLICY, "same-origin"),
                    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
                ] {
                    headers.insert(name, HeaderValue::from_static(value));
                }
                response
            }
            Err(error) => {
                tracing::error!(%error, "a page could not be written");
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
        }
    }
}

/// The style sheet of all pages.
pub async fn style() -> impl IntoResponse {
    let headers = [(header::CONTENT_TYPE, "text/css"), (header::CACHE_CONTROL, "max-age=3600")];
    (headers, include_str!("style.css"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_shown_is_text() {
        let evil = "<script>alert(1)</script>\"'&";
        let field = Field::line("x", "X", "").filled(evil);
        let form = Form { action: "/x".into(), button: "Do", fields: vec![field], ..Form::default() };
        let row = Row { cells: vec![evil.into(), Cell::code(evil)], forms: Vec::new() };
        let section = Section {
            title: evil.into(),
            help: evil.into(),
            columns: vec!["One", "Two"],
            rows: vec![row],
            forms: vec![form],
            ..Section::default()
        };
        let notice = Some(Notice { bad: true, text: evil.into(), more: evil.into() });
        let visitor = Some(Visitor { name: evil.into(), proof: evil.into() });
        let page = Page { title: evil.into(), notice, visitor, sections: vec![section], ..Page::default() };
        let text = page.render().unwrap();
        assert!(!text.contains("<script") && !text.contains("(1)</script>\""), "{text}");
        assert!(text.contains("&#60;script&#62;") || text.contains("&lt;script&gt;"), "{text}");
    }
}
