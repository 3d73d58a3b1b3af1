//! Refusals: the service's error codes with their status and text, and what a reply adds to them.

use std::borrow::Cow;

use hyper::StatusCode;
use serde_json::Value;

macro_rules! codes {
    ($($name:ident $status:literal $text:literal;)*) => {
        /// An error code of the service, spelt as in `x-ms-error-code`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $(#[doc = $text] $name,)*
        }

        impl ErrorCode {
            /// The code as on the wire.
            pub const fn name(self) -> &'static str {
                match self {
                    $(ErrorCode::$name => stringify!($name),)*
                }
            }

            /// The HTTP status that goes with the code.
            pub const fn status(self) -> u16 {
                match self {
                    $(ErrorCode::$name => $status,)*
                }
            }

            /// The message text that goes with the code.
            pub const fn text(self) -> &'static str {
                match self {
                    $(ErrorCode::$name => $text,)*
                }
            }
        }
    };
}

codes! {
    AuthenticationFailed 403 "Server failed to authenticate the request. Make sure the value of Authorization header is formed correctly including the signature.";
    AuthorizationPermissionMismatch 403 "This request is not authorized to perform this operation using this permission.";
    AuthorizationProtocolMismatch 403 "This request is not authorized to perform this operation using this protocol.";
    AuthorizationServiceMismatch 403 "This request is not authorized to perform this operation using this service.";
    AuthorizationResourceTypeMismatch 403 "This request is not authorized to perform this operation using this resource type.";
    NoAuthenticationInformation 401 "Server failed to authenticate the request. Please refer to the information in the www-authenticate header.";
    InvalidAuthenticationInfo 401 "Server failed to authenticate the request. Please refer to the information in the www-authenticate header.";
    AuthorizationFailed 403 "The client does not have authorization to perform the action over the scope, or the scope is invalid.";
    BadRequest 400 "The request is invalid.";
    BlobAlreadyExists 409 "The specified blob already exists.";
    BlobNotFound 404 "The specified blob does not exist.";
    BlobOverwritten 409 "The blob has been recreated since the previous snapshot was taken.";
    BlockCountExceedsLimit 409 "The uncommitted block count cannot exceed the maximum limit of 100,000 blocks.";
    BlockListTooLong 400 "The block list may not contain more than 50,000 blocks.";
    BothCrc64AndMd5HeaderPresent 400 "Both x-ms-content-crc64 header and Content-MD5 header are present.";
    BothCrc64AndMd5RangeHeaderPresent 400 "Both x-ms-range-get-content-crc64 header and x-ms-range-get-content-md5 header are present.";
    CannotVerifyCopySource 500 "Could not verify the copy source within the specified time.";
    ConditionNotMet 412 "The condition specified using HTTP conditional header(s) is not met.";
    ConditionHeadersNotSupported 400 "Condition headers are not supported.";
    ContainerAlreadyExists 409 "The specified container already exists.";
    ContainerNotFound 404 "The specified container does not exist.";
    CopySourceCannotBeIncrementalCopyBlob 409 "Source blob of a copy operation cannot be non-snapshot incremental copy blob.";
    CopySourceNotFound 404 "The source snapshot of the copy is not found.";
    Crc64Mismatch 400 "The CRC64 value specified in the request did not match with the CRC64 value calculated by the server.";
    EmptyMetadataKey 400 "The key for one of the metadata key-value pairs is empty.";
    ExpiredAuthenticationToken 401 "The access token expiry UTC time is earlier than the current UTC time.";
    InfiniteLeaseDurationRequired 412 "The lease ID matched, but the specified lease must be an infinite-duration lease.";
    InternalError 500 "Server encountered an internal error. Please try again after some time.";
    InvalidApiVersionParameter 400 "The api-version is invalid.";
    InvalidAuthenticationToken 401 "The access token is invalid.";
    InvalidAuthenticationTokenAudience 401 "The access token has been obtained for wrong audience or resource.";
    InvalidBlobOrBlock 400 "The specified blob or block content is invalid.";
    InvalidBlobType 409 "The blob type is invalid for this operation.";
    InvalidBlockId 400 "The specified block ID is invalid. The block ID must be Base64-encoded.";
    InvalidBlockList 400 "The specified block list is invalid.";
    InvalidCrc64 400 "The CRC64 value specified in the request is invalid. The CRC64 value must be 64 bits and base64 encoded.";
    InvalidHeaderValue 400 "The value for one of the HTTP headers is not in the correct format.";
    InvalidMd5 400 "The MD5 value specified in the request is invalid. The MD5 value must be 128 bits and base64 encoded.";
    InvalidMetadata 400 "The metadata specified is invalid. It has characters that are not permitted.";
    InvalidOperation 400 "Invalid operation against a blob snapshot.";
    InvalidPageRange 416 "The page range specified is invalid.";
    InvalidParameter 400 "A parameter of the request is invalid.";
    InvalidQueryParameterValue 400 "Value for one of the query parameters specified in the request URI is invalid.";
    InvalidRange 416 "The range specified is invalid for the current size of the resource.";
    InvalidRequestContent 400 "The request content was invalid and could not be deserialized.";
    InvalidResourceName 400 "The resource name is invalid.";
    InvalidResourceType 404 "The resource type could not be found.";
    InvalidUri 400 "The requested URI does not represent any resource on the server.";
    InvalidVhd 409 "The disk's VHD is not valid.";
    InvalidXmlDocument 400 "The XML specified is not syntactically valid.";
    LeaseAlreadyPresent 409 "There is already a lease present.";
    LeaseIdMismatchWithBlobOperation 412 "The lease ID specified did not match the lease ID for the blob.";
    LeaseIdMismatchWithLeaseOperation 409 "The lease ID specified did not match the lease ID for the blob.";
    LeaseIdMissing 412 "There is currently a lease on the blob and no lease ID was specified in the request.";
    LeaseIsBreakingAndCannotBeAcquired 409 "The lease ID matched, but the lease is currently in breaking state and cannot be acquired until it is broken.";
    LeaseIsBreakingAndCannotBeChanged 409 "The lease ID matched, but the lease is currently in breaking state and cannot be changed.";
    LeaseIsBrokenAndCannotBeRenewed 409 "The lease ID matched, but the lease has been broken explicitly and cannot be renewed.";
    LeaseLost 412 "A lease ID was specified, but the lease for the blob has expired.";
    LeaseNotPresentWithBlobOperation 412 "There is currently no lease on the blob.";
    LeaseNotPresentWithLeaseOperation 409 "There is currently no lease on the blob.";
    Md5Mismatch 400 "The MD5 value specified in the request did not match with the MD5 value calculated by the server.";
    MetadataTooLarge 400 "The metadata specified exceeds the maximum permissible limit.";
    MissingApiVersionParameter 400 "The api-version query parameter (?api-version=) is required for all requests.";
    MissingContentLengthHeader 411 "Content-Length HTTP header is missing.";
    MissingRequiredHeader 400 "An HTTP header that's mandatory for this request is not specified.";
    MultipleConditionHeadersNotSupported 400 "Multiple condition headers are not supported.";
    NoPendingCopyOperation 409 "There is currently no pending copy operation.";
    NoRegisteredProviderFound 400 "No registered resource provider found for the location and API version.";
    NotFound 404 "The entity was not found.";
    NotImplemented 501 "The requested operation is not implemented on the specified resource.";
    OperationNotAllowed 409 "The operation is not allowed.";
    OperationTimedOut 500 "Operation could not be completed within the specified time.";
    PreviousSnapshotCannotBeNewer 400 "The prevsnapshot query parameter value cannot be newer than snapshot query parameter value.";
    PreviousSnapshotNotFound 409 "The previous snapshot is not found.";
    PreviousSnapshotOperationNotSupported 409 "Differential Get Page Ranges is not supported on the previous snapshot.";
    PropertyChangeNotAllowed 409 "Changing the property is not allowed.";
    RequestBodyTooLarge 413 "The request body is too large and exceeds the maximum permissible limit.";
    ResourceGroupNotFound 404 "The resource group could not be found.";
    ResourceNotFound 404 "The specified resource does not exist.";
    SequenceNumberConditionNotMet 412 "The sequence number condition specified was not met.";
    SequenceNumberIncrementTooLarge 409 "The sequence number increment cannot be performed because it would result in overflow of the sequence number.";
    ServerBusy 503 "The server is busy.";
    SnapshotsPresent 409 "This operation is not permitted because the blob has snapshots.";
    SourceConditionNotMet 412 "The source condition specified using HTTP conditional header(s) is not met.";
    SubscriptionNotFound 404 "The subscription could not be found.";
    TargetConditionNotMet 412 "The target condition specified using HTTP conditional header(s) is not met.";
    UnsupportedHeader 400 "One of the HTTP headers specified in the request is not supported.";
    UnsupportedHeaderForNonManagedDisksAccount 400 "The header is only supported on managed disks accounts.";
    UnsupportedHttpVerb 405 "The resource doesn't support specified Http Verb.";
}

/// A refusal on its way to becoming a reply.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) code: ErrorCode,
    pub(crate) status: StatusCode,
    /// The code's own message, unless the code has several.
    pub(crate) text: Cow<'static, str>,
    /// Elements that the body holds after its message.
    pub(crate) elements: Vec<(&'static str, String)>,
    /// What the body of a management reply holds besides.
    pub(crate) details: Option<Value>,
    pub(crate) headers: Vec<(&'static str, String)>,
}

/// What a step of serving a call returns.
pub(crate) type Outcome<T> = Result<T, Failure>;

impl From<ErrorCode> for Failure {
    fn from(code: ErrorCode) -> Failure {
        let status = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Failure {
            code,
            status,
            text: code.text().into(),
            elements: Vec::new(),
            details: None,
            headers: Vec::new(),
        }
    }
}

impl Failure {
    pub(crate) fn element(mut self, name: &'static str, text: impl Into<String>) -> Failure {
        self.elements.push((name, text.into()));
        self
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Failure {
        self.headers.push((name, value.into()));
        self
    }

    /// Another message.
    pub(crate) fn saying(self, text: impl Into<Cow<'static, str>>) -> Failure {
        Failure { text: text.into(), ..self }
    }

    /// Another status.
    pub(crate) fn with_status(self, status: StatusCode) -> Failure {
        Failure { status, ..self }
    }

    /// 403 with the reason that the service gives in its body.
    pub(crate) fn unauthenticated(detail: impl Into<String>) -> Failure {
        Failure::from(ErrorCode::AuthenticationFailed).element("AuthenticationErrorDetail", detail)
    }

    pub(crate) fn bad_header(name: &str, value: &str) -> Failure {
        Failure::from(ErrorCode::InvalidHeaderValue).element("HeaderName", name).element("HeaderValue", value)
    }

    pub(crate) fn missing_header(name: &str) -> Failure {
        Failure::from(ErrorCode::MissingRequiredHeader).element("HeaderName", name)
    }

    pub(crate) fn unsupported_header(name: &str) -> Failure {
        Failure::from(ErrorCode::UnsupportedHeader).element("HeaderName", name)
    }

    pub(crate) fn bad_parameter(name: &str, value: &str, reason: &str) -> Failure {
        Failure::from(ErrorCode::InvalidQueryParameterValue)
            .element("QueryParameterName", name)
            .element("QueryParameterValue", value)
            .element("Reason", reason)
    }

    /// The unmet condition of a read: 304, which has no body.
    pub(crate) fn not_modified() -> Failure {
        Failure { status: StatusCode::NOT_MODIFIED, ..Failure::from(ErrorCode::ConditionNotMet) }
    }
}
