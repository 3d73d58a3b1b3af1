//! Put Page: limits, checksums, sequence numbers, leases, and the headers of its replies.

use std::time::Duration;

use snapferry_emulator::Knobs;

use crate::client::{BLOB, CONTAINER, Fixture, and, put, send};

const MIB: u64 = 1 << 20;

#[tokio::test]
async fn an_update_tells_its_checksum() {
    let fixture = Fixture::with_blob(8 * MIB).await;
    let answer = fixture.write(512..1024, b'a').await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.header("x-ms-content-crc64"), Some("u661BimQ84c="));
    assert_eq!(answer.header("content-md5"), None);
    assert_eq!(answer.header("x-ms-blob-sequence-number"), Some("0"));
    assert_eq!(answer.header("x-ms-request-server-encrypted"), Some("true"));
    let next = fixture.write(512..1024, b'a').await;
    assert_ne!(answer.etag(), next.etag());

    let answer = fixture.write_if(0..512, b'a', &[("content-md5", "VuKgR5bAobAsLT53IiLTgg==")]).await;
    assert_eq!(answer.refusal(), (400, "Md5Mismatch"));
    fixture.set(Knobs { put_page_returns_md5: true, ..Knobs::default() });
    let md5 = fixture.write(0..512, b'a').await;
    assert_eq!(md5.header("x-ms-content-crc64"), None);
    let md5 = md5.header("content-md5").unwrap();
    fixture.set(Knobs::default());
    let answer = fixture.write_if(0..512, b'a', &[("content-md5", md5)]).await;
    assert_eq!((answer.status, answer.header("content-md5")), (201, Some(md5)));
    assert_eq!(answer.header("x-ms-content-crc64"), None);
}

#[tokio::test]
async fn a_wrong_checksum_is_refused_and_explained() {
    let fixture = Fixture::with_blob(MIB).await;
    let good = [("x-ms-content-crc64", "pK+ypU+jreM=")];
    assert_eq!(fixture.write_if(0..1024, b'b', &good).await.status, 201);
    let answer = fixture.write_if(0..1024, b'c', &good).await;
    assert_eq!(answer.refusal(), (400, "Crc64Mismatch"));
    let crcs = "</Message><UserSpecifiedCrc>pK+ypU+jreM=</UserSpecifiedCrc><ServerCalculatedCrc>";
    assert!(answer.text().contains(crcs), "{}", answer.text());
    let view = fixture.account.read_blob(CONTAINER, BLOB, None).unwrap();
    assert_eq!(view.read(0, 1024), [b'b'; 1024]);

    let refusal = async |headers: &[(&str, &str)]| {
        fixture.write_if(0..512, 0, headers).await.header("x-ms-error-code").unwrap().to_owned()
    };
    assert_eq!(refusal(&[("x-ms-content-crc64", "AAAA")]).await, "InvalidHeaderValue");
    assert_eq!(refusal(&[("x-ms-content-crc64", "%%%%")]).await, "InvalidCrc64");
    assert_eq!(refusal(&[("content-md5", "AAAA")]).await, "InvalidMd5");
    let both = [("content-md5", "AAAA"), ("x-ms-content-crc64", "AAAAAAAAAAA=")];
    assert_eq!(refusal(&both).await, "BothCrc64AndMd5HeaderPresent");
}

#[tokio::test]
async fn limits_and_alignment() {
    let fixture = Fixture::with_blob(16 * MIB).await;
    assert_eq!(fixture.write(0..4 * MIB, 1).await.status, 201);
    assert_eq!(fixture.write(0..4 * MIB + 512, 1).await.refusal(), (413, "RequestBodyTooLarge"));
    assert_eq!(fixture.write(0..500, 1).await.refusal(), (416, "InvalidPageRange"));
    assert_eq!(fixture.write(100..612, 1).await.refusal(), (416, "InvalidPageRange"));
    assert_eq!(fixture.write(16 * MIB..16 * MIB + 512, 1).await.refusal(), (416, "InvalidPageRange"));
    assert_eq!(fixture.write(16 * MIB - 512..16 * MIB + 512, 1).await.refusal(), (416, "InvalidPageRange"));
    assert_eq!(fixture.clear(0..16 * MIB).await.status, 201);
    assert_eq!(fixture.clear(0..16 * MIB + 512).await.refusal(), (416, "InvalidPageRange"));

    let url = and(&fixture.url, "comp=page");
    let update = ("x-ms-page-write", "update");
    let answer = send("PUT", &url, &[update, ("x-ms-range", "bytes=0-1023")], vec![0; 512]).await;
    assert_eq!(answer.refusal(), (416, "InvalidPageRange"));
    let answer = send("PUT", &url, &[update], vec![0; 512]).await;
    assert_eq!(answer.refusal(), (400, "MissingRequiredHeader"));
    let headers = [("x-ms-page-write", "clear"), ("x-ms-range", "bytes=0-511")];
    let answer = send("PUT", &url, &headers, vec![0; 512]).await;
    assert_eq!(answer.refusal(), (400, "InvalidHeaderValue"));
    let headers = [("x-ms-page-write", "overwrite"), ("x-ms-range", "bytes=0-511")];
    let answer = send("PUT", &url, &headers, vec![0; 512]).await;
    assert_eq!(answer.refusal(), (400, "InvalidHeaderValue"));
    let answer = fixture.write_if(0..512, 0, &[("x-ms-structured-body", "XSM/1.0; properties=crc64")]).await;
    assert_eq!(answer.refusal(), (400, "UnsupportedHeader"));
}

#[tokio::test]
async fn a_clear_has_no_checksum_and_frees_pages() {
    let fixture = Fixture::with_blob(MIB).await;
    fixture.write(0..MIB, 1).await;
    let answer = fixture.clear(512..MIB - 512).await;
    assert_eq!((answer.status, answer.header("x-ms-blob-sequence-number")), (201, Some("0")));
    for absent in ["x-ms-content-crc64", "content-md5", "x-ms-request-server-encrypted"] {
        assert_eq!(answer.header(absent), None, "{absent}");
    }
    let view = fixture.account.read_blob(CONTAINER, BLOB, None).unwrap();
    assert_eq!(view.allocated_ranges(), [0..512, MIB - 512..MIB]);
    assert!(view.read(512, MIB - 1024).iter().all(|byte| *byte == 0));
}

#[tokio::test]
async fn sequence_numbers_fence_writes() {
    let fixture = Fixture::with_blob(4096).await;
    let properties = and(&fixture.url, "comp=properties");
    let set = async |action: &str, number: &str| {
        let headers = [("x-ms-sequence-number-action", action), ("x-ms-blob-sequence-number", number)];
        let answer = put(&properties, &headers).await;
        (answer.status, answer.header("x-ms-blob-sequence-number").unwrap_or("").to_owned())
    };
    assert_eq!(set("increment", "").await, (200, "1".to_owned()));
    assert_eq!(set("update", "10").await, (200, "10".to_owned()));
    assert_eq!(set("max", "100").await, (200, "100".to_owned()));
    assert_eq!(set("max", "7").await, (200, "100".to_owned()));
    assert_eq!(set("increment", "5").await.0, 400);
    assert_eq!(set("max", "").await.0, 400);
    assert_eq!(set("update", "9223372036854775808").await.0, 400);

    let conditions = [("eq", 99, 100, 101), ("le", 99, 100, 101), ("lt", 99, 100, 101)];
    let met = [[false, true, false], [false, true, true], [false, false, true]];
    for ((kind, below, same, above), met) in conditions.into_iter().zip(met) {
        for (number, met) in [below, same, above].into_iter().zip(met) {
            let name = format!("x-ms-if-sequence-number-{kind}");
            let answer = fixture.write_if(0..512, 1, &[(&name, &number.to_string())]).await;
            let expected = if met { (201, "") } else { (412, "SequenceNumberConditionNotMet") };
            assert_eq!(answer.refusal(), expected, "{kind} {number}");
        }
    }
    assert_eq!(set("update", "9223372036854775807").await.0, 200);
    let answer = put(&properties, &[("x-ms-sequence-number-action", "increment")]).await;
    assert_eq!(answer.refusal(), (409, "SequenceNumberIncrementTooLarge"));
}

#[tokio::test]
async fn a_lease_fences_writes() {
    let fixture = Fixture::with_blob(4096).await;
    let lease = and(&fixture.url, "comp=lease");
    let id = "0000000a-0000-0000-0000-00000000000a";
    let other = "0000000b-0000-0000-0000-00000000000b";
    let acquire =
        [("x-ms-lease-action", "acquire"), ("x-ms-lease-duration", "60"), ("x-ms-proposed-lease-id", id)];
    let taken = put(&lease, &acquire).await;
    assert_eq!((taken.status, taken.header("x-ms-lease-id")), (201, Some(id)));

    assert_eq!(fixture.write(0..512, 1).await.refusal(), (412, "LeaseIdMissing"));
    let answer = fixture.write_if(0..512, 1, &[("x-ms-lease-id", other)]).await;
    assert_eq!(answer.refusal(), (412, "LeaseIdMismatchWithBlobOperation"));
    assert_eq!(fixture.write_if(0..512, 1, &[("x-ms-lease-id", id)]).await.status, 201);

    fixture.emulator.advance_clock(Duration::from_mins(1));
    let answer = fixture.write_if(0..512, 1, &[("x-ms-lease-id", id)]).await;
    assert_eq!(answer.refusal(), (412, "LeaseLost"));
    let renew = [("x-ms-lease-action", "renew"), ("x-ms-lease-id", id)];
    assert_eq!(put(&lease, &renew).await.status, 200);
    fixture.emulator.advance_clock(Duration::from_mins(1));
    assert_eq!(fixture.write(0..512, 1).await.status, 201);
    assert_eq!(put(&lease, &renew).await.refusal(), (409, "LeaseIdMismatchWithLeaseOperation"));
}
