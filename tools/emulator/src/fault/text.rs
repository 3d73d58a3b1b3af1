//! Faults in text; the grammar is described at [`Fault`].

use std::str::FromStr;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use super::{BadPageList, BusyText, Fault, FaultKind};
use crate::call::{Role, UnknownCall};
use crate::quantity::{parse_bytes, parse_time};

/// The text describes no fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadFault {
    /// There is no kind, or there are too many parts.
    #[error("a fault has the form CALL:KIND or CALL:OPTIONS:KIND")]
    Parts,
    /// The first part is neither `any` nor the name of a call.
    #[error(transparent)]
    Call(#[from] UnknownCall),
    /// No option has that name, or not that value.
    #[error("'{0}' is no option of a fault")]
    Option(String),
    /// No kind has that name.
    #[error("no fault is named '{0}'")]
    Kind(String),
    /// A kind's value is missing, malformed or too much.
    #[error("'{value}' is no value of the fault {kind}")]
    Value {
        /// The kind.
        kind: String,
        /// Its value; empty if there is none.
        value: String,
    },
}

impl FromStr for Fault {
    type Err = BadFault;

    fn from_str(text: &str) -> Result<Fault, BadFault> {
        let parts: Vec<&str> = text.split(':').collect();
        let (call, options, kind) = match parts[..] {
            [call, kind] => (call, None, kind),
            [call, options, kind] => (call, Some(options), kind),
            _ => return Err(BadFault::Parts),
        };
        let mut fault = Fault::new(kind_from(kind)?);
        if call != "any" {
            fault.call = Some(call.parse()?);
        }
        for option in options.into_iter().flat_map(|options| options.split(',')) {
            set_option(&mut fault, option).ok_or_else(|| BadFault::Option(option.to_owned()))?;
        }
        Ok(fault)
    }
}

fn set_option(fault: &mut Fault, option: &str) -> Option<()> {
    let (name, value) = option.split_once('=')?;
    match name {
        "skip" => fault.skip = value.parse().ok()?,
        "times" if value == "always" => fault.times = u64::MAX,
        "times" => fault.times = value.parse().ok()?,
        "chance" => {
            let chance = value.parse().ok()?;
            fault.chance = Some(chance).filter(|chance| (0.0..=1.0).contains(chance))?;
        }
        "role" => {
            fault.role = Some(match value {
                "export" => Role::DiskExport,
                "account" => Role::Account,
                "management" => Role::Management,
                _ => return None,
            });
        }
        "blob" => fault.blob = Some(percent_decode_str(value).decode_utf8().ok()?.into_owned()),
        _ => return None,
    }
    Some(())
}

fn kind_from(text: &str) -> Result<FaultKind, BadFault> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (text, None),
    };
    let time = || value.and_then(parse_time);
    let bytes = || value.and_then(parse_bytes);
    let plain = |kind| if value.is_none() { Some(kind) } else { None };
    let kind = match name {
        "server-busy" => busy_text(value).map(FaultKind::ServerBusy),
        "retry-after" => seconds(value).map(|seconds| FaultKind::RetryAfter { seconds }),
        "operation-timed-out" => {
            let after = value.map_or(Some(Duration::ZERO), parse_time);
            after.map(|after| FaultKind::OperationTimedOut { after })
        }
        "internal-error" => plain(FaultKind::InternalError),
        "forbidden" => plain(FaultKind::Forbidden),
        "forbidden-after" => time().map(FaultKind::ForbiddenAfter),
        "cut-before-apply" => plain(FaultKind::CutBeforeApply),
        "cut-after-apply" => plain(FaultKind::CutAfterApply),
        "cut-in-request" => plain(FaultKind::CutInRequest),
        "cut-in-reply" => plain(FaultKind::CutInReply),
        "truncate-body" => bytes().map(|keep| FaultKind::TruncateBody { keep }),
        "flip-byte-in-reply" => plain(FaultKind::FlipByteInReply),
        "flip-byte-in-request" => plain(FaultKind::FlipByteInRequest),
        "late-duplicate" => time().map(|after| FaultKind::LateDuplicate { after }),
        "delayed-apply" => time().map(|after| FaultKind::DelayedApply { after }),
        "stall" => time().map(|lasting| FaultKind::Stall { lasting }),
        "stall-body" => stall_body(value),
        "not-supported" => plain(FaultKind::NotSupported),
        "bad-page-list" => bad_page_list(value).map(FaultKind::BadPageList),
        "too-many-requests" => seconds(value).map(|seconds| FaultKind::TooManyRequests { seconds }),
        _ => return Err(BadFault::Kind(name.to_owned())),
    };
    let value = value.unwrap_or_default();
    kind.ok_or_else(|| BadFault::Value { kind: name.to_owned(), value: value.to_owned() })
}

fn busy_text(value: Option<&str>) -> Option<BusyText> {
    match value {
        None | Some("busy") => Some(BusyText::Busy),
        Some("ingress") => Some(BusyText::Ingress),
        Some("egress") => Some(BusyText::Egress),
        Some("operations") => Some(BusyText::Operations),
        Some(_) => None,
    }
}

/// A number of seconds, with or without its unit.
fn seconds(value: Option<&str>) -> Option<u64> {
    let value = value?;
    value.strip_suffix('s').unwrap_or(value).parse().ok()
}

fn stall_body(value: Option<&str>) -> Option<FaultKind> {
    let (after_bytes, lasting) = value?.split_once(',')?;
    Some(FaultKind::StallBody { after_bytes: parse_bytes(after_bytes)?, lasting: parse_time(lasting)? })
}

fn bad_page_list(value: Option<&str>) -> Option<BadPageList> {
    match value? {
        "overlapping" => Some(BadPageList::Overlapping),
        "misordered" => Some(BadPageList::Misordered),
        "misaligned" => Some(BadPageList::Misaligned),
        "out-of-bounds" => Some(BadPageList::OutOfBounds),
        "false-clear" => Some(BadPageList::FalseClear),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::call::Call;

    fn parse(text: &str) -> Result<Fault, BadFault> {
        text.parse()
    }

    #[test]
    fn every_kind_is_read_under_its_name() {
        let second = Duration::from_secs(1);
        let kinds = [
            ("server-busy", FaultKind::ServerBusy(BusyText::Busy)),
            ("server-busy=busy", FaultKind::ServerBusy(BusyText::Busy)),
            ("server-busy=ingress", FaultKind::ServerBusy(BusyText::Ingress)),
            ("server-busy=egress", FaultKind::ServerBusy(BusyText::Egress)),
            ("server-busy=operations", FaultKind::ServerBusy(BusyText::Operations)),
            ("retry-after=7", FaultKind::RetryAfter { seconds: 7 }),
            ("retry-after=7s", FaultKind::RetryAfter { seconds: 7 }),
            ("operation-timed-out", FaultKind::OperationTimedOut { after: Duration::ZERO }),
            ("operation-timed-out=1s", FaultKind::OperationTimedOut { after: second }),
            ("internal-error", FaultKind::InternalError),
            ("forbidden", FaultKind::Forbidden),
            ("forbidden-after=1s", FaultKind::ForbiddenAfter(second)),
            ("cut-before-apply", FaultKind::CutBeforeApply),
            ("cut-after-apply", FaultKind::CutAfterApply),
            ("cut-in-request", FaultKind::CutInRequest),
            ("cut-in-reply", FaultKind::CutInReply),
            ("truncate-body=1KiB", FaultKind::TruncateBody { keep: 1024 }),
            ("flip-byte-in-reply", FaultKind::FlipByteInReply),
            ("flip-byte-in-request", FaultKind::FlipByteInRequest),
            ("late-duplicate=1s", FaultKind::LateDuplicate { after: second }),
            ("delayed-apply=1000ms", FaultKind::DelayedApply { after: second }),
            ("stall=1s", FaultKind::Stall { lasting: second }),
            ("stall-body=512,1s", FaultKind::StallBody { after_bytes: 512, lasting: second }),
            ("not-supported", FaultKind::NotSupported),
            ("bad-page-list=overlapping", FaultKind::BadPageList(BadPageList::Overlapping)),
            ("bad-page-list=misordered", FaultKind::BadPageList(BadPageList::Misordered)),
            ("bad-page-list=misaligned", FaultKind::BadPageList(BadPageList::Misaligned)),
            ("bad-page-list=out-of-bounds", FaultKind::BadPageList(BadPageList::OutOfBounds)),
            ("bad-page-list=false-clear", FaultKind::BadPageList(BadPageList::FalseClear)),
            ("too-many-requests=20", FaultKind::TooManyRequests { seconds: 20 }),
        ];
        for (text, kind) in kinds {
            assert!(text.starts_with(kind.name()));
            assert_eq!(parse(&format!("any:{text}")).unwrap(), Fault::new(kind), "{text}");
        }
    }

    #[test]
    fn options_are_read() {
        let fault =
            parse("get-blob:skip=1,times=always,chance=0.25,role=export,blob=a%2Cb:forbidden").unwrap();
        let expected = Fault::new(FaultKind::Forbidden).on(Call::GetBlob).skip(1).always().chance(0.25);
        assert_eq!(fault, expected.at(Role::DiskExport).of_blob("a,b"));
        assert_eq!(parse("any:role=account:forbidden").unwrap().role, Some(Role::Account));
        assert_eq!(parse("any:role=management:forbidden").unwrap().role, Some(Role::Management));
        for call in Call::ALL {
            assert_eq!(parse(&format!("{call}:times=9:internal-error")).unwrap().call, Some(*call));
        }
    }

    #[test]
    fn errors_name_what_is_wrong() {
        for (text, error) in [
            ("", "a fault has the form CALL:KIND or CALL:OPTIONS:KIND"),
            ("put-page", "a fault has the form CALL:KIND or CALL:OPTIONS:KIND"),
            ("any:skip=1:forbidden:more", "a fault has the form CALL:KIND or CALL:OPTIONS:KIND"),
            ("put-pages:forbidden", "no call is named 'put-pages'"),
            ("any::forbidden", "'' is no option of a fault"),
            ("any:skip:forbidden", "'skip' is no option of a fault"),
            ("any:skip=-1:forbidden", "'skip=-1' is no option of a fault"),
            ("any:chance=1.5:forbidden", "'chance=1.5' is no option of a fault"),
            ("any:chance=NaN:forbidden", "'chance=NaN' is no option of a fault"),
            ("any:role=disk:forbidden", "'role=disk' is no option of a fault"),
            ("any:blob=%FF:forbidden", "'blob=%FF' is no option of a fault"),
            ("any:often=1:forbidden", "'often=1' is no option of a fault"),
            ("any:bad-luck", "no fault is named 'bad-luck'"),
            ("any:", "no fault is named ''"),
            ("any:server-busy=very", "'very' is no value of the fault server-busy"),
            ("any:stall", "'' is no value of the fault stall"),
            ("any:stall=5", "'5' is no value of the fault stall"),
            ("any:stall-body=5s", "'5s' is no value of the fault stall-body"),
            ("any:forbidden=1", "'1' is no value of the fault forbidden"),
            ("any:truncate-body=1MB", "'1MB' is no value of the fault truncate-body"),
            ("any:bad-page-list", "'' is no value of the fault bad-page-list"),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), error, "{text}");
        }
    }
}
