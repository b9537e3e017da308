//! Residency evidence as messages: what was sent of tenants to which region, and where they were erased.

use stead_api::{
    convert,
    proto::admin::v1::{ListResidencyRecordsRequest, ListResidencyRecordsResponse, ResidencyRecord, residency_record},
};
use stead_state::directory::{DirectoryView, ErasedRecord, SentRecord, TenantEvidence};
use stead_types::{Error, RegionName, TenantNumber};

use super::{PAGE_DEFAULT, PAGE_MAX, time};
use crate::{directory::LocalVoter, host::storage_unavailable};

/// Records after which a page ends, with all of its last tenant: some 1.5 MiB, below what clients take as one message.
const RECORDS_MAX: usize = 10_000;

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
    let is_asked = |of: &TenantEvidence| request.tenant.is_empty() || of.name.as_str() == request.tenant;
    let page = local_voter.machine.read(|directory| {
        let evidence = directory.evidence().from(TenantNumber::new(from));
        page(directory.view(), evidence.filter(|(_, of)| is_asked(of)), size)
    });
    let (records, next) = page.map_err(|incomplete| storage_unavailable(&incomplete))?;
    let next = next.map(|last| convert::page::token(request.tenant.as_bytes(), &last.get().to_be_bytes()));
    Ok(ListResidencyRecordsResponse {
        records,
        next_page_token: next.unwrap_or_default(),
    })
}

/// Returns the records of the next tenants, and the last of these if there are more. A page of `size` tenants ends earlier
/// with the tenant that brings it to [`RECORDS_MAX`].
fn page<'a>(
    view: &DirectoryView,
    evidence: impl Iterator<Item = (TenantNumber, &'a TenantEvidence)>,
    size: usize,
) -> (Vec<ResidencyRecord>, Option<TenantNumber>) {
    let mut evidence = evidence.peekable();
    let (mut records, mut last, mut tenants) = (Vec::new(), None, 0);
    while tenants < size
        && records.len() < RECORDS_MAX
        && let Some((number, of)) = evidence.next()
    {
        records.extend(messages(view, number, of));
        last = Some(number);
        tenants += 1;
    }
    let is_more = evidence.peek().is_some();
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

#[cfg(test)]
mod tests {
    use stead_types::DirectoryVersion;

    use super::*;

    fn evidence(sent: usize) -> TenantEvidence {
        let policy = DirectoryVersion::ZERO;
        let record = SentRecord {
            region: "eu-west".parse().unwrap(),
            policy_first: policy,
            policy_last: policy,
            first_ms: 1,
            last_ms: 2,
            bytes: 3,
        };
        TenantEvidence {
            name: "acme".parse().unwrap(),
            gone_ms: None,
            sent: vec![record; sent],
            erased: Vec::new(),
        }
    }

    /// Returns how many records each page has, of tenants with so many records.
    fn pages(tenants: &[usize], size: usize) -> Vec<usize> {
        let all = (1..)
            .map(TenantNumber::new)
            .zip(tenants.iter().map(|sent| evidence(*sent)));
        let all: Vec<(TenantNumber, TenantEvidence)> = all.collect();
        let (mut lens, mut after) = (Vec::new(), TenantNumber::new(0));
        loop {
            let rest = all.iter().filter(|(number, _)| *number > after);
            let (records, last) = page(&DirectoryView::default(), rest.map(|(number, of)| (*number, of)), size);
            lens.push(records.len());
            let Some(last) = last else { return lens };
            after = last;
        }
    }

    #[test]
    fn page_ends_at_its_tenants_or_its_records() {
        assert_eq!(pages(&[], 2), [0]);
        assert_eq!(pages(&[1, 2, 3], 2), [3, 3]);
        assert_eq!(pages(&[1, 2], 2), [3]);
        assert_eq!(pages(&[RECORDS_MAX - 1, 1, 5], 10), [RECORDS_MAX, 5]);
        assert_eq!(pages(&[RECORDS_MAX + 7, 5], 10), [RECORDS_MAX + 7, 5]);
    }
}
