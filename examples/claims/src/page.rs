//! The one HTML page.

use crate::{
    claim::{Claim, pounds},
    settings::Settings,
};
use std::fmt::Write;

const STYLE: &str = "body{font:1rem/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem;color:#0b0c0c}\
table{border-collapse:collapse;width:100%}td,th{border-bottom:1px solid #b1b4b6;padding:.4rem;text-align:left}\
td.n,th.n{text-align:right}footer{color:#505a5f;margin-top:2rem;font-size:.9rem}";

pub fn page(settings: &Settings, claims: &[Claim]) -> String {
    let mut rows = String::new();
    for claim in claims {
        // Writing to a string cannot fail.
        let _ = write!(
            rows,
            "<tr><td>{}</td><td>{}</td><td class=\"n\">{}</td><td>{}</td></tr>",
            claim.id,
            escape(&claim.purpose),
            pounds(claim.pence),
            claim.status.name()
        );
    }
    if claims.is_empty() {
        rows.push_str("<tr><td colspan=\"4\">No claims yet.</td></tr>");
    }
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Claims</title><style>{STYLE}</style></head>\
         <body><h1>{}</h1><table><thead><tr><th>Claim</th><th>Purpose</th><th class=\"n\">Amount</th><th>Status</th></tr>\
         </thead><tbody>{rows}</tbody></table><footer>{} · version {} · commit {}</footer></body></html>\n",
        escape(&settings.greeting),
        escape(&settings.environment),
        escape(&settings.version),
        escape(&settings.commit),
    )
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::claim::Status;

    #[test]
    fn markup_in_peoples_text_is_escaped() {
        let settings = Settings::from(|name| match name {
            "DATABASE_URL" => Some("sqlite://claims.db".into()),
            "GREETING" => Some("Tea & <biscuits>".into()),
            _ => None,
        });
        let claim = Claim {
            id: 7,
            purpose: "<script>x</script>".into(),
            pence: 1205,
            status: Status::Submitted,
        };
        let page = page(&settings.unwrap(), &[claim]);
        assert!(page.contains("<h1>Tea &amp; &lt;biscuits&gt;</h1>"), "{page}");
        assert!(page.contains("&lt;script&gt;x&lt;/script&gt;"), "{page}");
        assert!(page.contains("£12.05"), "{page}");
        assert!(!page.contains("No claims yet"), "{page}");
    }
}
