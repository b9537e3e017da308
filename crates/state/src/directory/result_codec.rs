//! Encoding of the results of directory commands, between voters and the nodes that proposed.

use bytes::Bytes;
use stead_types::{GroupId, Jurisdiction, RegionName, TenantName, TenantNumber};

use super::{
    DirectoryOutcome, DirectoryResult, PromotionRejection, RegionLossRejection, Rejection, TopologyRejection, text,
};
use crate::codec::{Malformed, Reader, Writer};

/// Writes a result, for the node that forwarded the command.
pub fn encode(result: &DirectoryResult) -> Bytes {
    let mut writer = Writer::with_capacity(32);
    let w = &mut writer;
    match result {
        Ok(DirectoryOutcome::Done) => drop(w.u8(0)),
        Ok(DirectoryOutcome::Tenant(number)) => drop(w.u8(1).varint(number.get())),
        Ok(DirectoryOutcome::Node(number)) => drop(w.u8(2).varint(number.get())),
        Ok(DirectoryOutcome::Operation(number)) => drop(w.u8(3).varint(*number)),
        Err(rejection) => encode_rejection(rejection, w),
    }
    writer.finish()
}

fn encode_rejection(rejection: &Rejection, w: &mut Writer) {
    let mut named = |tag, name: &str| text::write(w.u8(tag), name);
    match rejection {
        Rejection::NotBootstrapped => drop(w.u8(16)),
        Rejection::OtherCluster => drop(w.u8(17)),
        Rejection::TenantExists(name) => named(18, name.as_str()),
        Rejection::TenantUnknown(name) => named(19, name.as_str()),
        Rejection::TenantsFull => drop(w.u8(20)),
        Rejection::RegionUnknown(name) => named(21, name.as_str()),
        Rejection::RegionExists(name) => named(22, name.as_str()),
        Rejection::RegionEmpty(name) => named(23, name.as_str()),
        Rejection::NodeExists(name) => named(24, name),
        Rejection::NodeUnknown(number) => drop(w.u8(25).varint(number.get())),
        Rejection::Residency {
            allowed,
            region,
            jurisdiction,
        } => write_residency(w.u8(26), allowed, region, jurisdiction),
        Rejection::HomeFollows(name) => named(27, name.as_str()),
        Rejection::RemoteAlone => drop(w.u8(28)),
        Rejection::Changed(name) => named(29, name.as_str()),
        Rejection::NotDisabled(name) => named(30, name.as_str()),
        Rejection::StaleIncarnation => drop(w.u8(31)),
        Rejection::NotActive(name) => named(32, name.as_str()),
        Rejection::AlreadyHome(name) => named(33, name.as_str()),
        Rejection::AlreadyMoving(name) => named(34, name.as_str()),
        Rejection::Promoting(name) => named(35, name.as_str()),
        Rejection::GroupUnknown(group) => write_group(w.u8(36), *group),
        Rejection::TargetLeaving { tenant, group } => write_member(w.u8(37), tenant, *group),
        Rejection::TargetUnreachable(group) => write_group(w.u8(38), *group),
        Rejection::HomeUnreachable(group) => write_group(w.u8(39), *group),
        Rejection::SourceFollows(name) => named(40, name.as_str()),
        Rejection::SourceInRegion(name) => named(41, name.as_str()),
        Rejection::NotMember { tenant, group } => write_member(w.u8(42), tenant, *group),
        Rejection::MemberNeeded { tenant, group } => write_member(w.u8(43), tenant, *group),
        Rejection::EpochsExhausted(name) => named(44, name.as_str()),
        Rejection::OperationUnknown(number) => drop(w.u8(45).varint(*number)),
        Rejection::OperationSucceeded(number) => drop(w.u8(46).varint(*number)),
        Rejection::OperationOver => drop(w.u8(47)),
        Rejection::OperationsFull => drop(w.u8(48)),
        Rejection::StaleReport => drop(w.u8(49)),
        Rejection::FeatureLevel { needed, level } => write_levels(w.u8(50), &[*needed, *level]),
        Rejection::FeatureLevelRange { requested, level, max } => write_levels(w.u8(51), &[*requested, *level, *max]),
        Rejection::NodesBehind { requested, count, node } => {
            text::write(w.u8(52).varint(u64::from(*requested)).varint(*count), node)
        }
        Rejection::LeaseTtl(ms) => drop(w.u8(53).varint(*ms)),
        Rejection::RegionDraining(name) => named(70, name.as_str()),
        Rejection::NotDraining(name) => named(71, name.as_str()),
        Rejection::DrainInFlight { region, operation } => {
            text::write(w.u8(72).varint(*operation), region.as_str());
        }
        Rejection::DrainedTooOften(name) => named(73, name.as_str()),
        Rejection::DrainIntoItself(name) => named(74, name.as_str()),
        Rejection::NoOpenRegion(name) => named(75, name.as_str()),
        Rejection::OnlyGroup(name) => named(76, name.as_str()),
        Rejection::NothingToMove => drop(w.u8(77)),
        Rejection::NamedTwice(name) => named(78, name.as_str()),
        Rejection::NamedTooMany(count) => drop(w.u8(79).varint(*count)),
        Rejection::NotBulkMove(number) => drop(w.u8(80).varint(*number)),
        Rejection::BulkMovesFull => drop(w.u8(81)),
        Rejection::Promotion(promotion) => promotion.encode(w),
        Rejection::RegionLoss(region_loss) => region_loss.encode(w),
        Rejection::Topology(topology) => topology.encode(w),
        Rejection::BulkTenantsFull(selected, kept) => drop(w.u8(69).varint(*selected).varint(*kept)),
        Rejection::NotHome { tenant, region } => write_not_home(w.u8(110), tenant, region),
        Rejection::RehearsalWithoutForecast(region) => named(111, region.as_str()),
        Rejection::RoleBindingsFull => drop(w.u8(120)),
        Rejection::RoleNotBound(subject) => named(121, subject),
    }
}

fn write_residency(w: &mut Writer, allowed: &[Jurisdiction], region: &RegionName, jurisdiction: &Jurisdiction) {
    text::write_all(w, allowed.iter().map(Jurisdiction::as_str));
    text::write(w, region.as_str());
    text::write(w, jurisdiction.as_str());
}

fn write_not_home(w: &mut Writer, tenant: &TenantName, region: &RegionName) {
    text::write(w, tenant.as_str());
    text::write(w, region.as_str());
}

fn write_levels(w: &mut Writer, levels: &[u32]) {
    for level in levels {
        w.varint(u64::from(*level));
    }
}

fn write_group(w: &mut Writer, group: GroupId) {
    w.varint(u64::from(group.get()));
}

fn write_member(w: &mut Writer, tenant: &TenantName, group: GroupId) {
    text::write(w, tenant.as_str());
    write_group(w, group);
}

/// Reads what [`encode`] wrote.
pub fn decode(bytes: Bytes) -> Result<DirectoryResult, Malformed> {
    let mut reader = Reader::new(bytes, "directory result");
    let r = &mut reader;
    let result = match r.u8()? {
        0 => Ok(DirectoryOutcome::Done),
        1 => Ok(DirectoryOutcome::Tenant(TenantNumber::new(r.varint()?))),
        2 => Ok(DirectoryOutcome::Node(text::node(r)?)),
        3 => Ok(DirectoryOutcome::Operation(r.varint()?)),
        tag => Err(decode_rejection(tag, r)?),
    };
    reader.end()?;
    Ok(result)
}

fn decode_rejection(tag: u8, r: &mut Reader) -> Result<Rejection, Malformed> {
    Ok(match tag {
        16 => Rejection::NotBootstrapped,
        17 => Rejection::OtherCluster,
        18 => Rejection::TenantExists(text::parse(r)?),
        19 => Rejection::TenantUnknown(text::parse(r)?),
        20 => Rejection::TenantsFull,
        21 => Rejection::RegionUnknown(text::parse(r)?),
        22 => Rejection::RegionExists(text::parse(r)?),
        23 => Rejection::RegionEmpty(text::parse(r)?),
        24 => Rejection::NodeExists(text::read(r)?),
        25 => Rejection::NodeUnknown(text::node(r)?),
        26 => Rejection::Residency {
            allowed: r.list(text::parse)?,
            region: text::parse(r)?,
            jurisdiction: text::parse(r)?,
        },
        27 => Rejection::HomeFollows(text::parse(r)?),
        28 => Rejection::RemoteAlone,
        29 => Rejection::Changed(text::parse(r)?),
        30 => Rejection::NotDisabled(text::parse(r)?),
        31 => Rejection::StaleIncarnation,
        _ => decode_operation_rejection(tag, r)?,
    })
}

/// Reads a rejection of an operation, a report or a cluster setting.
fn decode_operation_rejection(tag: u8, r: &mut Reader) -> Result<Rejection, Malformed> {
    Ok(match tag {
        32 => Rejection::NotActive(text::parse(r)?),
        33 => Rejection::AlreadyHome(text::parse(r)?),
        34 => Rejection::AlreadyMoving(text::parse(r)?),
        35 => Rejection::Promoting(text::parse(r)?),
        36 => Rejection::GroupUnknown(text::group(r)?),
        37 => Rejection::TargetLeaving {
            tenant: text::parse(r)?,
            group: text::group(r)?,
        },
        38 => Rejection::TargetUnreachable(text::group(r)?),
        39 => Rejection::HomeUnreachable(text::group(r)?),
        40 => Rejection::SourceFollows(text::parse(r)?),
        41 => Rejection::SourceInRegion(text::parse(r)?),
        42 => Rejection::NotMember {
            tenant: text::parse(r)?,
            group: text::group(r)?,
        },
        43 => Rejection::MemberNeeded {
            tenant: text::parse(r)?,
            group: text::group(r)?,
        },
        44 => Rejection::EpochsExhausted(text::parse(r)?),
        45 => Rejection::OperationUnknown(r.varint()?),
        46 => Rejection::OperationSucceeded(r.varint()?),
        47 => Rejection::OperationOver,
        48 => Rejection::OperationsFull,
        49 => Rejection::StaleReport,
        50 => Rejection::FeatureLevel {
            needed: r.varint_u32()?,
            level: r.varint_u32()?,
        },
        51 => Rejection::FeatureLevelRange {
            requested: r.varint_u32()?,
            level: r.varint_u32()?,
            max: r.varint_u32()?,
        },
        52 => Rejection::NodesBehind {
            requested: r.varint_u32()?,
            count: r.varint()?,
            node: text::read(r)?,
        },
        53 => Rejection::LeaseTtl(r.varint()?),
        _ => decode_bulk_move_rejection(tag, r)?,
    })
}

/// Reads a rejection of a bulk move.
fn decode_bulk_move_rejection(tag: u8, r: &mut Reader) -> Result<Rejection, Malformed> {
    Ok(match tag {
        120 => Rejection::RoleBindingsFull,
        121 => Rejection::RoleNotBound(text::read(r)?),
        69 => Rejection::BulkTenantsFull(r.varint()?, r.varint()?),
        70 => Rejection::RegionDraining(text::parse(r)?),
        71 => Rejection::NotDraining(text::parse(r)?),
        72 => Rejection::DrainInFlight {
            operation: r.varint()?,
            region: text::parse(r)?,
        },
        73 => Rejection::DrainedTooOften(text::parse(r)?),
        74 => Rejection::DrainIntoItself(text::parse(r)?),
        75 => Rejection::NoOpenRegion(text::parse(r)?),
        76 => Rejection::OnlyGroup(text::parse(r)?),
        77 => Rejection::NothingToMove,
        78 => Rejection::NamedTwice(text::parse(r)?),
        79 => Rejection::NamedTooMany(r.varint()?),
        80 => Rejection::NotBulkMove(r.varint()?),
        81 => Rejection::BulkMovesFull,
        110 => Rejection::NotHome {
            tenant: text::parse(r)?,
            region: text::parse(r)?,
        },
        111 => Rejection::RehearsalWithoutForecast(text::parse(r)?),
        _ => match RegionLossRejection::decode(tag, r)? {
            Some(region_loss) => region_loss.into(),
            None => match TopologyRejection::decode(tag, r)? {
                Some(topology) => topology.into(),
                None => PromotionRejection::decode(tag, r)?.into(),
            },
        },
    })
}
