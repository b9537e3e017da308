//! Forwarder of operations that another node must serve.

use std::sync::Arc;

use stead_api::operation;
use stead_state::routing::CurrentHome;
use stead_types::{Epoch, NodeId, limits::HOPS_MAX};

use super::{
    admission_controller::AdmissionController, call::ForwardTarget, call_completion::CallCompletion,
    forward_links::ForwardLinks, job::Job, rejections,
};
use crate::{host::HostedGroup, metrics::ServedFrom};

/// Forwarder of operations: admits each to its tenant's share of the way, and hands it to a link.
pub(crate) struct Forwarder {
    node: NodeId,
    admission: Arc<AdmissionController>,
    completion: CallCompletion,
    links: Arc<ForwardLinks>,
}

impl Forwarder {
    /// Returns the forwarder of a node.
    pub(super) fn new(
        node: NodeId,
        admission: Arc<AdmissionController>,
        completion: CallCompletion,
        links: Arc<ForwardLinks>,
    ) -> Self {
        Self {
            node,
            admission,
            completion,
            links,
        }
    }

    /// Forwards an operation to one of these nodes, on account of an epoch.
    pub(super) fn forward<R>(&self, mut job: Job<R>, to: CurrentHome, nodes: &[NodeId]) {
        // A permit as an operation that this node serves would count twice.
        job.call.responder.release();
        let len = operation::len(&job.call.operation) as u64;
        match self.admission.admit_forwarded(&job.tenant, len) {
            Ok(permit) => job.call.responder.hold(permit),
            Err(error) => return self.completion.reject(job.call, &error),
        }
        let target = ForwardTarget {
            group: to.group,
            epoch: to.epoch,
            tenant: job.tenant.number,
        };
        self.completion.count(&job.call, ServedFrom::Forwarded);
        self.links.send(job.call, target, nodes);
    }

    /// Forwards an operation to the leader of a group of this node, unless it is unknown or the hops are used up.
    pub(super) fn forward_to_leader<R>(&self, job: Job<R>, hosted: &HostedGroup, leader: Option<NodeId>) {
        let record = hosted.local_record(job.tenant.number).map(|record| record.epoch);
        let forwarded = job.call.forwarded.map(|target| target.epoch);
        let known = record.into_iter().chain(forwarded);
        let to = CurrentHome {
            group: hosted.raft.id(),
            epoch: known.fold(job.tenant.epoch, Epoch::max),
        };
        match leader.filter(|leader| *leader != self.node && job.call.hops < HOPS_MAX) {
            Some(leader) => self.forward(job, to, &[leader]),
            None => self.completion.reject(job.call, &rejections::no_leader(&job.tenant)),
        }
    }
}
