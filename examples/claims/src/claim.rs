//! A claim, and the rules that hold without a database.

use crate::settings::Secret;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// The highest amount of a claim.
const MOST_PENCE: u64 = 100_000_000;
/// The most characters that fit into the page's table.
const LONGEST: usize = 100;

/// A claim that someone submits.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewClaim {
    pub claimant: String,
    pub purpose: String,
    pub pence: u64,
}

impl NewClaim {
    /// What is wrong with the claim, for the person who filled it in.
    pub fn problem(&self) -> Option<String> {
        for (name, text) in [("claimant", &self.claimant), ("purpose", &self.purpose)] {
            if text.trim().is_empty() {
                return Some(format!("{name} is empty"));
            }
            if text.chars().count() > LONGEST {
                return Some(format!("{name} is longer than {LONGEST} characters"));
            }
        }
        match self.pence {
            0 => Some("pence is 0: there is nothing to claim".into()),
            pence if pence > MOST_PENCE => Some(format!("pence is more than {MOST_PENCE}: that is not an expense")),
            _ => None,
        }
    }
}

/// The status of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Submitted,
    Approved,
    Referred,
    Archived,
}

impl Status {
    const ALL: [Self; 4] = [Self::Submitted, Self::Approved, Self::Referred, Self::Archived];

    pub fn name(self) -> &'static str {
        match self {
            Self::Submitted => "submitted",
            Self::Approved => "approved",
            Self::Referred => "referred",
            Self::Archived => "archived",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }
}

/// The worker's decision: small claims are approved, others are referred to a person.
pub fn decide(pence: u64, auto_approve_pence: u64) -> Status {
    if pence <= auto_approve_pence {
        Status::Approved
    } else {
        Status::Referred
    }
}

/// A claim as everyone may see it: without the claimant's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Claim {
    pub id: i64,
    pub purpose: String,
    pub pence: u64,
    pub status: Status,
}

/// `£12.05`.
pub fn pounds(pence: u64) -> String {
    format!("£{}.{:02}", pence / 100, pence % 100)
}

/// Proves that its holder submitted the claim `id`, and may see the claimant's name.
pub fn receipt(key: &Secret, id: i64) -> String {
    let tag = signed(key, id).finalize().into_bytes();
    tag[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether `receipt` is the receipt of claim `id`. Takes the same time for every wrong receipt.
pub fn is_receipt(key: &Secret, id: i64, receipt: &str) -> bool {
    let bytes: Option<Vec<u8>> = (0..receipt.len())
        .step_by(2)
        .map(|at| {
            receipt
                .get(at..at + 2)
                .and_then(|pair| u8::from_str_radix(pair, 16).ok())
        })
        .collect();
    bytes.is_some_and(|bytes| bytes.len() == 16 && signed(key, id).verify_truncated_left(&bytes).is_ok())
}

fn signed(key: &Secret, id: i64) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose().as_bytes()).expect("HMAC takes keys of any length");
    mac.update(format!("receipt of claim {id}").as_bytes());
    mac
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    fn key(text: &str) -> Secret {
        let variable = |name: &str| Some(if name == "SESSION_KEY" { text } else { "sqlite://x" }.to_string());
        Settings::from(|name| {
            matches!(name, "SESSION_KEY" | "DATABASE_URL")
                .then(|| variable(name))
                .flatten()
        })
        .unwrap()
        .session_key
        .unwrap()
    }

    #[test]
    fn a_claim_needs_a_name_a_purpose_and_an_amount() {
        let check = |claimant: &str, purpose: &str, pence: u64, expect: Option<&str>| {
            let claim = NewClaim {
                claimant: claimant.into(),
                purpose: purpose.into(),
                pence,
            };
            assert_eq!(claim.problem().as_deref(), expect, "{claim:?}");
        };
        check("Ada", "Train to Leeds", 4250, None);
        check(" ", "Train to Leeds", 4250, Some("claimant is empty"));
        check("Ada", "", 4250, Some("purpose is empty"));
        check("Ada", &"é".repeat(100), 4250, None);
        check(
            "Ada",
            &"é".repeat(101),
            4250,
            Some("purpose is longer than 100 characters"),
        );
        check(
            "Ada",
            "Train to Leeds",
            0,
            Some("pence is 0: there is nothing to claim"),
        );
        check(
            "Ada",
            "A train",
            u64::MAX,
            Some("pence is more than 100000000: that is not an expense"),
        );
    }

    #[test]
    fn every_status_is_found_by_its_name() {
        for status in Status::ALL {
            assert_eq!(Status::named(status.name()), Some(status));
            assert_eq!(
                serde_json::to_string(&status).unwrap(),
                format!("\"{}\"", status.name())
            );
        }
        assert_eq!(Status::named("lost"), None);
    }

    #[test]
    fn small_claims_pass_and_others_go_to_a_person() {
        for (pence, expect) in [
            (1, Status::Approved),
            (10_000, Status::Approved),
            (10_001, Status::Referred),
        ] {
            assert_eq!(decide(pence, 10_000), expect, "{pence}");
        }
    }

    #[test]
    fn pence_are_shown_as_pounds() {
        for (pence, expect) in [(5, "£0.05"), (1205, "£12.05"), (100_000, "£1000.00")] {
            assert_eq!(pounds(pence), expect);
        }
    }

    #[test]
    fn a_receipt_opens_one_claim_and_only_with_its_key() {
        let receipt = receipt(&key("first"), 7);
        assert!(is_receipt(&key("first"), 7, &receipt));
        assert!(!is_receipt(&key("first"), 8, &receipt));
        assert!(!is_receipt(&key("second"), 7, &receipt));
        for forged in ["", "00", "zz", "é", &receipt[..30], &format!("{receipt}00")] {
            assert!(!is_receipt(&key("first"), 7, forged), "{forged}");
        }
    }
}
