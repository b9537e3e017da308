//! Writes that are refused before they are proposed: nothing happened.

use crate::{
    disk::{DISK_RESERVE_LIMIT, DiskRoom},
    host::HostedGroup,
    router::{call_completion::CallCompletion, job::Job, remote, request::WriteRequest},
};

/// Rejects writes that ask for another region where none follows the tenant; returns the others.
pub(super) fn reject_remote_alone(
    completion: &CallCompletion,
    hosted: &HostedGroup,
    jobs: Vec<Job<WriteRequest>>,
) -> Vec<Job<WriteRequest>> {
    if !jobs.iter().any(remote::is_remote_write) {
        return jobs;
    }
    let mut others = Vec::with_capacity(jobs.len());
    for job in jobs {
        let checked = remote::is_remote_write(&job).then(|| hosted.remote.check(&job.tenant));
        match checked.unwrap_or(Ok(())) {
            Ok(()) => others.push(job),
            Err(rejection) => completion.reject(job.call, &rejection.into()),
        }
    }
    others
}

/// Rejects, on the group's leader, writes that need room where the voters' disks have too little; returns the others.
pub(super) fn reject_without_room(
    completion: &CallCompletion,
    room: &DiskRoom,
    hosted: &HostedGroup,
    jobs: Vec<Job<WriteRequest>>,
) -> Vec<Job<WriteRequest>> {
    // Elsewhere they are passed on to the leader.
    if !hosted.raft.is_leader() || !room.may_be_short() {
        return jobs;
    }
    let Err(error) = room.check(hosted.raft.metrics().voters) else {
        return jobs;
    };
    let (growing, others) = jobs.into_iter().partition(|job| job.request.mutation.needs_room());
    let growing: Vec<Job<WriteRequest>> = growing;
    for job in growing {
        completion.shed(job.call, DISK_RESERVE_LIMIT, &error);
    }
    others
}
