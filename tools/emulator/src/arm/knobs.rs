//! What can be chosen of management: behaviour that is unknown, that varies, or that a careless client trips over.

/// Behaviour of the management side, see `Arm::set_knobs`.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is an independent switch of the service")]
pub struct ArmKnobs {
    /// How many milliseconds `timeCreated` is after the time in the snapshot's URL. The order stays that of the snapshots
    /// even where this is changed between them.
    pub time_created_offset_ms: i64,
    /// How many resources a page of a list holds.
    pub page_size: usize,
    /// Whether a list ends with a page that holds nothing.
    pub empty_last_page: bool,
    /// How beginGetAccess is answered.
    pub begin_access: AsyncReply,
    /// How endGetAccess and the making and deleting of resources are answered.
    pub other_changes: AsyncReply,
    /// How often an operation is asked for before it is over.
    pub polls: u32,
    /// Whether an operation that is not over is answered without a body.
    pub poll_without_body: bool,
    /// Whether each answer to a poll sends the client to another URL for the next; the old one is gone then.
    pub poll_moves: bool,
    /// Whether an operation that is not over is answered with 200 under `Location` and 202 under `Azure-AsyncOperation`,
    /// instead of the other way round.
    pub poll_status_misleads: bool,
    /// The `Retry-After` of operations that are not over, in seconds.
    pub retry_after: Option<u64>,
    /// Whether an operation that cannot succeed is accepted all the same, and its failure told by a poll.
    pub late_refusals: bool,
    /// Whether the field is spelt `accessSas` instead of `accessSAS`.
    pub lower_case_sas: bool,
    /// What beginGetAccess does while a SAS is out for the same snapshot or disk.
    pub second_grant: SecondGrant,
    /// How many snapshots of a family may have a SAS.
    pub family_grant_limit: usize,
    /// How fast a background copy to another region is.
    pub copy_percent_per_second: f64,
    /// How many background copies to one region may be under way, waiting ones included.
    pub copies_per_region: usize,
    /// Whether a copy in another region shows the `incrementalSnapshotFamilyId` of its source instead of one of its own.
    /// Its hidden blob is its own in any case.
    pub copy_keeps_family: bool,
}

impl Default for ArmKnobs {
    fn default() -> ArmKnobs {
        ArmKnobs {
            time_created_offset_ms: -387,
            page_size: 100,
            empty_last_page: false,
            begin_access: AsyncReply::AtOnce,
            other_changes: AsyncReply::AtOnce,
            polls: 1,
            poll_without_body: false,
            poll_moves: false,
            poll_status_misleads: false,
            retry_after: None,
            late_refusals: false,
            lower_case_sas: false,
            second_grant: SecondGrant::Refused,
            family_grant_limit: 5,
            copy_percent_per_second: 50.0,
            copies_per_region: 100,
            copy_keeps_family: false,
        }
    }
}

/// How a call is answered that may take time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AsyncReply {
    /// With its outcome.
    #[default]
    AtOnce,
    /// 202 with the header `Azure-AsyncOperation`.
    AsyncOperation,
    /// 202 with the header `Location`.
    Location,
    /// 202 with both headers.
    Both,
}

/// What beginGetAccess does while a SAS is out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SecondGrant {
    /// 409.
    #[default]
    Refused,
    /// It returns the SAS that is out, whose end stays.
    Same,
    /// It returns another one, and the one that is out stays.
    NewBesideOld,
    /// It returns another one, and the one that is out ends.
    NewInsteadOfOld,
}
