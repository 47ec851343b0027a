//! Room versions: which ones we speak, and the rules of each.
//!
//! The rule sets are ruma's; every other module asks them by name and never compares versions.
//! Spec: "Room Versions".

use ruma::RoomVersionId;
pub use ruma::room_version_rules::RoomVersionRules;

/// The version of a new room for which nobody asked another.
pub const DEFAULT_VERSION: RoomVersionId = RoomVersionId::V12;

/// Every room version this server takes part in, all of them stable.
pub const SUPPORTED_VERSIONS: [RoomVersionId; 12] = [
    RoomVersionId::V1,
    RoomVersionId::V2,
    RoomVersionId::V3,
    RoomVersionId::V4,
    RoomVersionId::V5,
    RoomVersionId::V6,
    RoomVersionId::V7,
    RoomVersionId::V8,
    RoomVersionId::V9,
    RoomVersionId::V10,
    RoomVersionId::V11,
    RoomVersionId::V12,
];

static RULES: [RoomVersionRules; 12] = [
    RoomVersionRules::V1,
    RoomVersionRules::V2,
    RoomVersionRules::V3,
    RoomVersionRules::V4,
    RoomVersionRules::V5,
    RoomVersionRules::V6,
    RoomVersionRules::V7,
    RoomVersionRules::V8,
    RoomVersionRules::V9,
    RoomVersionRules::V10,
    RoomVersionRules::V11,
    RoomVersionRules::V12,
];

/// The rules of a room version, if this server knows it.
pub fn rules(version: &RoomVersionId) -> Option<&'static RoomVersionRules> {
    let position = SUPPORTED_VERSIONS.iter().position(|known| known == version)?;
    RULES.get(position)
}
