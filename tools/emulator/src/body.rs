//! A request's body on its way in: how long it may be, and its checksums, computed while it arrives.

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::call::Call;
use crate::error::{ErrorCode, Outcome};
use crate::link::Shaper;
use crate::range::ByteRange;
use crate::request::Request;
use crate::service::Service;
use crate::source::Source;
use crate::store::pages::PageData;

/// The most that one Put Page may write.
pub(crate) const PUT_PAGE_LIMIT: u64 = 4 << 20;

/// The most that one Put Blob of a block blob, or one Put Block, may hold here; the service takes more.
const PUT_BLOB_LIMIT: u64 = 256 << 20;

/// Enough for a list of 50,000 blocks with the longest ids.
const BLOCK_LIST_LIMIT: u64 = 8 << 20;

/// Calls without data have no body, or a short one that is ignored.
const OTHER_LIMIT: u64 = 64 << 10;

/// The longest body that is read to its end although the request is refused. A client that is still sending would not
/// see the refusal otherwise.
const DRAIN_LIMIT: u64 = 16 << 20;

/// A body that has arrived.
#[derive(Clone, Debug)]
pub(crate) struct RequestBody {
    /// Cut for the place in the blob where it is to be written.
    pub(crate) data: PageData,
    /// What the request asked to be read from elsewhere; set after the body itself was received.
    pub(crate) source: Option<Source>,
}

impl RequestBody {
    pub(crate) fn len(&self) -> u64 {
        self.data.len()
    }

    /// CRC-64/NVME of the body.
    pub(crate) fn crc64(&self) -> u64 {
        self.data.crc64()
    }

    /// MD5 of the body.
    pub(crate) fn md5(&self) -> [u8; 16] {
        self.data.md5()
    }

    /// The body in one piece.
    pub(crate) fn joined(&self) -> Bytes {
        match self.data.pieces() {
            [] => Bytes::new(),
            [piece] => piece.clone(),
            pieces => Bytes::from(pieces.concat()),
        }
    }
}

/// What happens to a body while it arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mishap {
    /// Nothing is taken in any more once the byte at `position` was there.
    Ends { position: u64 },
    /// A bit of the byte at `position` is not what it was.
    Flips { position: u64 },
}

/// Reads the whole body, if its length is one that the call may have.
pub(crate) async fn receive(
    service: &Service,
    request: &Request,
    mut incoming: Incoming,
    shaper: &Shaper,
    mishap: Option<Mishap>,
) -> Outcome<RequestBody> {
    let limit = match request.call {
        Call::PutPage => PUT_PAGE_LIMIT,
        Call::PutBlob | Call::PutBlock => PUT_BLOB_LIMIT,
        Call::PutBlockList => BLOCK_LIST_LIMIT,
        _ => OTHER_LIMIT,
    };
    let told = request.content_length()?;
    if request.method == hyper::Method::PUT && told.is_none() {
        return Err(ErrorCode::MissingContentLengthHeader.into());
    }
    if told.unwrap_or(0) > limit {
        return Err(ErrorCode::RequestBodyTooLarge.into());
    }
    let mut data = match request.call {
        Call::PutPage => pages_at(service, request)?,
        _ => PageData::at(0),
    };
    while let Some(frame) = incoming.frame().await {
        // The client went away in the middle; nobody reads this refusal, and nothing is applied.
        let frame = frame.map_err(|_| ErrorCode::OperationTimedOut)?;
        let Ok(mut bytes) = frame.into_data() else { continue };
        shaper.taken_in(bytes.len()).await;
        if let Some(Mishap::Flips { position }) = mishap {
            flip(&mut bytes, data.len(), position);
        }
        data.push(&bytes);
        if let Some(Mishap::Ends { position }) = mishap
            && data.len() > position
        {
            break;
        }
    }
    data.finish();
    Ok(RequestBody { data, source: None })
}

/// Where the body of a Put Page goes: to the place in its range, or past a sink.
fn pages_at(service: &Service, request: &Request) -> Outcome<PageData> {
    let start = request.range()?.and_then(ByteRange::closed).map_or(0, |range| range.start);
    Ok(match service.store.sink_tail(&request.target) {
        Some(tail) => {
            let with_md5 =
                request.headers.contains_key("content-md5") || service.knobs().put_page_returns_md5;
            PageData::passing(start, tail, with_md5)
        }
        None => PageData::at(start),
    })
}

/// Changes a bit of the byte at `position` if it is among these bytes, the first of which is at `start`.
pub(crate) fn flip(bytes: &mut Bytes, start: u64, position: u64) {
    let index = position.checked_sub(start).and_then(|index| usize::try_from(index).ok());
    if let Some(index) = index.filter(|index| *index < bytes.len()) {
        // A copy: others have these bytes, too.
        let mut changed = bytes.to_vec();
        changed[index] ^= 1;
        *bytes = Bytes::from(changed);
    }
}

/// Reads a refused request's body to its end, if it is not too long.
pub(crate) async fn drain(request: &Request, mut incoming: Incoming, shaper: &Shaper) {
    let waits_for_permission = request.headers.contains_key("expect");
    let length = request.content_length().ok().flatten().unwrap_or(u64::MAX);
    if waits_for_permission || length > DRAIN_LIMIT {
        return;
    }
    while let Some(Ok(frame)) = incoming.frame().await {
        shaper.taken_in(frame.data_ref().map_or(0, Bytes::len)).await;
    }
}
