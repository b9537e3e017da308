//! Residency evidence as messages: what was sent of tenants to which region, and where they were erased.

use stead_api::{
    convert,
    proto::admin::v1::{ListResidencyRecordsRequest, ListResidencyRecordsResponse, ResidencyRecord, residency_record},
};
use stead_state::directory::{Directory, DirectoryView, ErasedRecord, SentRecord, TenantEvidence};
use stead_types::{Error, RegionName, TenantNumber};

use super::{PAGE_DEFAULT, PAGE_MAX, time};
use crate::{directory::LocalVoter, host::storage_unavailable};

/// Lists evidence that a voter of the directory keeps.
pub(super) fn list(
    local_voter: &LocalVoter,
    request: &ListResidencyRecordsRequest,
) -> Result<ListResidencyRecordsResponse, Error> {
    let size = convert::page::size(request.page_size, PAGE_DEFAULT, PAGE_MAX)? as usize;
    let last = convert::page::position(request.tenant.as_bytes(), &request.page_token)?;
    let invalid = || Error::invalid("page_token", "page_token: not a token of this store");
    let from = match last {
        Some(bytes) => u64::from_be_bytes(bytes.try_into().map_err(|_| invalid())?).saturating_add(1),
        None => 0,
    };
    let page = local_voter
        .machine
        .read(|directory| page(directory, TenantNumber::new(from), &request.tenant, size));
    let (records, next) = page.map_err(|incomplete| storage_unavailable(&incomplete))?;
    let next = next.map(|last| convert::page::token(request.tenant.as_bytes(), &last.get().to_be_bytes()));
    Ok(ListResidencyRecordsResponse {
        records,
        next_page_token: next.unwrap_or_default(),
    })
}

/// Returns the records of the next tenants, and the last of these if there are more.
fn page(
    directory: &Directory,
    from: TenantNumber,
    name: &str,
    size: usize,
) -> (Vec<ResidencyRecord>, Option<TenantNumber>) {
    let evidence = directory.evidence().from(from);
    let mut evidence = evidence.filter(|(_, of)| name.is_empty() || of.name.as_str() == name);
    let (mut records, mut last) = (Vec::new(), None);
    for (number, of) in evidence.by_ref().take(size) {
        records.extend(messages(directory.view(), number, of));
        last = Some(number);
    }
    let is_more = evidence.next().is_some();
    (records, last.filter(|_| is_more))
}

fn messages(view: &DirectoryView, number: TenantNumber, of: &TenantEvidence) -> Vec<ResidencyRecord> {
    let message = |region: &RegionName, event| ResidencyRecord {
        tenant: of.name.to_string(),
        tenant_number: number.get(),
        region: region.to_string(),
        jurisdiction: view
            .region(region)
            .map_or_else(String::new, |region| region.jurisdiction.to_string()),
        event: Some(event),
    };
    let mut records: Vec<(u64, ResidencyRecord)> = Vec::new();
    records.extend(
        of.sent
            .iter()
            .map(|sent| (sent.first_ms, message(&sent.region, sent_event(sent)))),
    );
    let erased = of.erased.iter();
    records.extend(erased.map(|erased| (erased.time_ms, message(&erased.region, erased_event(erased)))));
    records.sort_by_key(|(time_ms, _)| *time_ms);
    records.into_iter().map(|(_, record)| record).collect()
}

fn sent_event(sent: &SentRecord) -> residency_record::Event {
    residency_record::Event::Sent(residency_record::Sent {
        policy_first: Some(convert::id::from_directory_version(sent.policy_first)),
        policy_last: Some(convert::id::from_directory_version(sent.policy_last)),
        first_time: Some(time(sent.first_ms)),
        last_time: Some(time(sent.last_ms)),
        bytes: sent.bytes,
    })
}

fn erased_event(erased: &ErasedRecord) -> residency_record::Event {
    residency_record::Event::Erased(residency_record::Erased {
        group: erased.group.get(),
        version: Some(convert::id::from_directory_version(erased.version)),
        time: Some(time(erased.time_ms)),
    })
}
