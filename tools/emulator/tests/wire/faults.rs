//! Scripted faults, as a client meets them.

use std::time::Duration;

use reqwest::Method;
use snapferry_emulator::{BadPageList, BusyText, Call, Fault, FaultKind, RequestRecord, Role};

use crate::client::{Answer, BLOB, CONTAINER, Fixture, VERSION, and, elements, get, put, range_text};

const KIB: u64 = 1 << 10;
const SOON: Duration = Duration::from_millis(20);
/// Long enough for the requests that a test makes before a late write comes.
const LATER: Duration = Duration::from_millis(500);
const LEASE: &str = "0000000a-0000-0000-0000-00000000000a";

/// A request whose connection may break: the status and headers that came, if any, and the body up to where it broke.
struct Broken {
    head: Option<reqwest::header::HeaderMap>,
    body: Vec<u8>,
    complete: bool,
}

async fn send_into_trouble(method: &str, url: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Broken {
    // Without a pool there is no connection whose breaking would make the client try again by itself.
    let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
    let mut request = http.request(Method::from_bytes(method.as_bytes()).unwrap(), url);
    request = request.header("x-ms-version", VERSION).body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let Ok(mut response) = request.send().await else {
        return Broken { head: None, body: Vec::new(), complete: false };
    };
    let head = Some(response.headers().clone());
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Broken { head, body, complete: true },
            Err(_) => return Broken { head, body, complete: false },
        }
    }
}

impl Fixture {
    fn fault(&self, kind: FaultKind) {
        self.emulator.faults().add(Fault::new(kind));
    }

    /// Writes into trouble: no reply is expected.
    async fn lose(&self, range: std::ops::Range<u64>, byte: u8, headers: &[(&str, &str)]) {
        let text = range_text(&range);
        let mut all = vec![("x-ms-page-write", "update"), ("x-ms-range", text.as_str())];
        all.extend_from_slice(headers);
        let body = vec![byte; usize::try_from(range.end - range.start).unwrap()];
        let broken = send_into_trouble("PUT", &and(&self.url, "comp=page"), &all, body).await;
        assert!(broken.head.is_none());
    }

    fn bytes(&self, offset: u64, length: u64) -> Vec<u8> {
        self.account.read_blob(CONTAINER, BLOB, None).unwrap().read(offset, length)
    }

    fn last_record(&self) -> RequestRecord {
        self.emulator.requests().pop().unwrap()
    }

    /// Waits until this many late writes were applied or refused, and returns the last of them.
    async fn late_record(&self, number: usize) -> RequestRecord {
        loop {
            let records = self.emulator.requests();
            let mut late = records.into_iter().filter(|record| record.late);
            if let Some(record) = late.nth(number - 1) {
                return record;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn refusals() {
    let fixture = Fixture::with_blob(8 * KIB).await;
    let texts = [BusyText::Busy, BusyText::Ingress, BusyText::Egress, BusyText::Operations];
    for text in texts {
        fixture.fault(FaultKind::ServerBusy(text));
        let answer = fixture.write(0..512, 1).await;
        assert_eq!(answer.refusal(), (503, "ServerBusy"));
        assert!(answer.text().contains(&format!("<Message>{}\n", text.text())), "{}", answer.text());
    }
    let cases = [
        (FaultKind::RetryAfter { seconds: 7 }, (503, "ServerBusy")),
        (FaultKind::OperationTimedOut { after: SOON }, (500, "OperationTimedOut")),
        (FaultKind::InternalError, (500, "InternalError")),
        (FaultKind::Forbidden, (403, "AuthenticationFailed")),
        (FaultKind::NotSupported, (501, "NotImplemented")),
    ];
    for (kind, refusal) in cases {
        let name = kind.name();
        fixture.fault(kind);
        let answer = fixture.write(0..512, 1).await;
        assert_eq!(answer.refusal(), refusal);
        assert_eq!(answer.header("retry-after"), (name == "retry-after").then_some("7"));
        assert_eq!(
            answer.text().contains("Signature not valid in the specified time frame: Start ["),
            name == "forbidden"
        );
        let record = fixture.last_record();
        assert_eq!((record.status, record.fault), (refusal.0, Some(name)));
    }
    assert_eq!(fixture.bytes(0, 512), [0; 512]);
    assert_eq!(fixture.emulator.faults().fired(), 9);
    assert_eq!(fixture.write(0..512, 1).await.status, 201);
    assert_eq!(fixture.last_record().fault, None);
}

#[tokio::test]
async fn a_fault_meets_what_it_is_set_for() {
    let fixture = Fixture::with_blob(8 * KIB).await;
    let faults = fixture.emulator.faults();
    faults.add("put-page:skip=1,times=2,role=account,blob=disk:internal-error".parse().unwrap());
    faults.add(Fault::new(FaultKind::Forbidden).at(Role::DiskExport).always());
    faults.add(Fault::new(FaultKind::Forbidden).on(Call::DeleteBlob).always());
    let mut statuses = Vec::new();
    for _ in 0..4 {
        assert_eq!(get(&fixture.url, &[]).await.status, 200);
        statuses.push(fixture.write(0..512, 1).await.status);
    }
    assert_eq!(statuses, [201, 500, 500, 201]);
    assert_eq!(faults.fired(), 2);
    faults.clear();

    faults.add(Fault::new(FaultKind::ForbiddenAfter(Duration::from_mins(1))));
    assert_eq!(fixture.write(0..512, 1).await.status, 201);
    fixture.emulator.advance_clock(Duration::from_mins(1));
    for _ in 0..2 {
        assert_eq!(fixture.write(0..512, 1).await.refusal(), (403, "AuthenticationFailed"));
    }
    faults.clear();
    assert_eq!(fixture.write(0..512, 1).await.status, 201);
}

#[tokio::test]
async fn a_cut_connection_leaves_the_outcome_open() {
    let fixture = Fixture::with_blob(8 * KIB).await;
    fixture.fault(FaultKind::CutBeforeApply);
    fixture.lose(0..4 * KIB, 1, &[]).await;
    assert_eq!(fixture.bytes(0, 512), [0; 512]);
    assert_eq!((fixture.last_record().status, fixture.last_record().fault), (0, Some("cut-before-apply")));

    fixture.fault(FaultKind::CutAfterApply);
    fixture.lose(0..4 * KIB, 1, &[]).await;
    assert_eq!(fixture.bytes(0, 512), [1; 512]);
    assert_eq!((fixture.last_record().status, fixture.last_record().fault), (201, Some("cut-after-apply")));

    fixture.fault(FaultKind::Stall { lasting: SOON });
    fixture.lose(0..4 * KIB, 2, &[]).await;
    assert_eq!(fixture.bytes(0, 512), [1; 512]);
    assert_eq!(fixture.write(0..512, 3).await.status, 201);
    assert_eq!(fixture.emulator.stats().of(Call::PutPage).requests, 4);
}

#[tokio::test]
async fn a_reply_ends_early() {
    let fixture = Fixture::with_blob(1024 * KIB).await;
    fixture.write(0..200 * KIB, 7).await;
    let kinds = [
        (FaultKind::TruncateBody { keep: 100_000 }, 100_000),
        (FaultKind::TruncateBody { keep: 0 }, 0),
        (FaultKind::TruncateBody { keep: 200 * KIB - 1 }, 200 * KIB - 1),
        (FaultKind::StallBody { after_bytes: 70_000, lasting: SOON }, 70_000),
    ];
    let range = [("x-ms-range", "bytes=0-204799")];
    for (kind, length) in kinds {
        fixture.fault(kind);
        let broken = send_into_trouble("GET", &fixture.url, &range, Vec::new()).await;
        assert_eq!((broken.body.len() as u64, broken.complete), (length, false));
        assert!(broken.body.iter().all(|byte| *byte == 7));
        assert_eq!(broken.head.unwrap().get("content-length").unwrap(), "204800");
    }
    // A body that is not longer stays as it is.
    fixture.fault(FaultKind::TruncateBody { keep: 200 * KIB });
    assert_eq!(get(&fixture.url, &range).await.body.len(), 200 << 10);

    let list = and(&fixture.url, "comp=pagelist");
    fixture.fault(FaultKind::TruncateBody { keep: 50 });
    let broken = send_into_trouble("GET", &list, &[], Vec::new()).await;
    assert_eq!((broken.body.len(), broken.complete), (50, false));
    assert!(broken.head.unwrap().get("content-length").is_none());
}

#[tokio::test]
async fn flipped_bytes_do_not_match_their_checksums() {
    let fixture = Fixture::with_blob(64 * KIB).await;
    let crc = [("x-ms-content-crc64", "pK+ypU+jreM=")];
    fixture.fault(FaultKind::FlipByteInRequest);
    assert_eq!(fixture.write_if(0..1024, b'b', &crc).await.refusal(), (400, "Crc64Mismatch"));
    assert_eq!(fixture.bytes(0, 1024), [0; 1024]);
    fixture.fault(FaultKind::FlipByteInRequest);
    let answer = fixture.write(0..1024, b'b').await;
    assert_eq!(answer.status, 201);
    assert_ne!(answer.header("x-ms-content-crc64"), Some(crc[0].1));
    assert_eq!(fixture.bytes(0, 1024).iter().filter(|byte| **byte != b'b').count(), 1);

    assert_eq!(fixture.write_if(0..1024, b'b', &crc).await.status, 201);
    fixture.fault(FaultKind::FlipByteInReply);
    let headers = [("x-ms-range", "bytes=0-1023"), ("x-ms-range-get-content-crc64", "true")];
    let answer = get(&fixture.url, &headers).await;
    assert_eq!(answer.header("x-ms-content-crc64"), Some(crc[0].1));
    assert_eq!(answer.body.iter().filter(|byte| **byte != b'b').count(), 1);
    assert_eq!(get(&fixture.url, &headers).await.body, [b'b'; 1024]);
}

async fn acquire_lease(fixture: &Fixture) {
    let headers =
        [("x-ms-lease-action", "acquire"), ("x-ms-lease-duration", "60"), ("x-ms-proposed-lease-id", LEASE)];
    assert_eq!(put(&and(&fixture.url, "comp=lease"), &headers).await.status, 201);
}

#[tokio::test]
async fn a_late_duplicate_overwrites_unless_it_is_fenced() {
    let fixture = Fixture::with_blob(8 * KIB).await;
    fixture.fault(FaultKind::LateDuplicate { after: LATER });
    assert_eq!(fixture.write(0..512, 1).await.status, 201);
    assert_eq!(fixture.write(0..512, 2).await.status, 201);
    let late = fixture.late_record(1).await;
    assert_eq!((late.call, late.status, late.fault), (Call::PutPage, 201, Some("late-duplicate")));
    assert_eq!(fixture.bytes(0, 512), [1; 512]);

    let number = ("x-ms-if-sequence-number-eq", "0");
    fixture.fault(FaultKind::LateDuplicate { after: LATER });
    assert_eq!(fixture.write_if(0..512, 3, &[number]).await.status, 201);
    let increment = [("x-ms-sequence-number-action", "increment")];
    assert_eq!(put(&and(&fixture.url, "comp=properties"), &increment).await.status, 200);
    assert_eq!(fixture.write(0..512, 4).await.status, 201);
    assert_eq!(fixture.late_record(2).await.error, Some("SequenceNumberConditionNotMet"));
    assert_eq!(fixture.bytes(0, 512), [4; 512]);
}

#[tokio::test]
async fn a_delayed_write_meets_the_conditions_of_its_time() {
    let fixture = Fixture::with_blob(8 * KIB).await;
    fixture.fault(FaultKind::DelayedApply { after: LATER });
    fixture.lose(0..512, 1, &[]).await;
    let late = fixture.late_record(1).await;
    assert_eq!((late.status, late.fault), (201, Some("delayed-apply")));
    assert_eq!(fixture.bytes(0, 512), [1; 512]);
    let first = fixture.emulator.requests().into_iter().find(|record| record.fault.is_some()).unwrap();
    assert_eq!((first.status, first.late), (0, false));

    fixture.fault(FaultKind::DelayedApply { after: LATER });
    fixture.lose(0..512, 2, &[]).await;
    acquire_lease(&fixture).await;
    assert_eq!(fixture.late_record(2).await.error, Some("LeaseIdMissing"));
    let etag = put(&and(&fixture.url, "comp=metadata"), &[("x-ms-lease-id", LEASE)]).await.etag();
    fixture.fault(FaultKind::DelayedApply { after: LATER });
    fixture.lose(0..512, 3, &[("x-ms-lease-id", LEASE), ("if-match", &etag)]).await;
    assert_eq!(fixture.write_if(512..1024, 9, &[("x-ms-lease-id", LEASE)]).await.status, 201);
    assert_eq!(fixture.late_record(3).await.error, Some("ConditionNotMet"));
    assert_eq!(fixture.bytes(0, 512), [1; 512]);
}

#[tokio::test]
async fn page_lists_that_break_the_protocol() {
    let fixture = Fixture::with_blob(64 * KIB).await;
    fixture.write(0..512, 1).await;
    let list = and(&fixture.url, "comp=pagelist");
    let broken = async |how, headers: &[(&str, &str)]| -> Answer {
        fixture.fault(FaultKind::BadPageList(how));
        get(&list, headers).await
    };
    let window = [("x-ms-range", "bytes=4096-65535")];
    assert_eq!(elements(&broken(BadPageList::Overlapping, &[]).await), [('+', 0..1024), ('+', 512..1536)]);
    let misordered = elements(&broken(BadPageList::Misordered, &window).await);
    assert_eq!(misordered, [('+', 5120..5632), ('+', 4096..4608)]);
    assert_eq!(elements(&broken(BadPageList::Misaligned, &[]).await), [('+', 100..612)]);
    let past_end = elements(&broken(BadPageList::OutOfBounds, &window).await);
    assert_eq!(past_end, [('+', 65536..66048)]);
    assert_eq!(elements(&get(&list, &[]).await), [('+', 0..512)]);
    // Other calls do not meet it.
    fixture.fault(FaultKind::BadPageList(BadPageList::Misaligned));
    assert_eq!(get(&fixture.url, &[]).await.status, 200);
    assert_eq!(fixture.emulator.faults().fired(), 4);
}
