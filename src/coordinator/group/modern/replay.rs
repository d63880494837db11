//! The new groups back from the log.
//!
//! Source: Kafka's GroupMetadataManager.replay and onLoaded.

use std::sync::Arc;

use crate::coordinator::group::classic_group::ClassicGroup;
use crate::coordinator::group::schema::SchemaError;
use crate::coordinator::group::turn::Turn;
use crate::coordinator::group::{GroupCoordinator, TimerKey};

use super::{About, MemberState, ModernGroup, ModernKey, ModernValue};

impl GroupCoordinator {
    pub(in crate::coordinator::group) fn replay_modern(
        &mut self,
        key: &ModernKey,
        value: Option<&[u8]>,
        now_ms: i64,
    ) -> Result<(), SchemaError> {
        let value = value.map(|bytes| ModernValue::decode(key, bytes)).transpose()?;
        if value.is_some() {
            self.ensure_group(&key.group_id, now_ms);
        }
        let Some(group) = self.groups.get_mut(key.group_id.as_str()) else { return Ok(()) };
        let is_there = group.modern.as_ref().is_some_and(|modern| modern.kind == key.kind);
        match value {
            Some(value) => {
                // The later record says which protocol the group speaks.
                if !is_there {
                    group.classic = ClassicGroup::empty(Some(now_ms));
                    group.stored = None;
                    group.modern = Some(Box::new(ModernGroup::new(key.kind, now_ms)));
                }
                if let Some(modern) = group.modern.as_deref_mut() {
                    modern.replay(&key.about, value);
                }
            }
            None if is_there && key.about == About::Epoch => group.modern = None,
            None if is_there => {
                if let Some(modern) = group.modern.as_deref_mut() {
                    modern.replay_tombstone(&key.about);
                }
            }
            None => {}
        }
        self.forget_if_unused(&key.group_id);
        Ok(())
    }
}

impl ModernGroup {
    fn replay(&mut self, about: &About, value: ModernValue) {
        match (about, value) {
            (_, ModernValue::Epoch(epoch, metadata_hash)) => {
                (self.epoch, self.metadata_hash) = (epoch, metadata_hash);
            }
            (About::Member(id), ModernValue::Member(member)) => {
                self.members.entry(id.clone()).or_default().info = member.0;
            }
            (About::Regex(regex), ModernValue::Regex(resolved)) => {
                self.regexes.insert(regex.clone(), resolved.0);
            }
            (About::Target(id), ModernValue::Target(target)) => {
                self.targets.insert(id.clone(), target);
            }
            (_, ModernValue::TargetEpoch(epoch, made_ms)) => {
                (self.assignment_epoch, self.assignment_ms) = (epoch, made_ms);
            }
            (About::Current(id), ModernValue::Current(current)) => {
                self.members.entry(id.clone()).or_default().current = current.0;
            }
            _ => {}
        }
    }

    fn replay_tombstone(&mut self, about: &About) {
        match about {
            About::Member(id) => {
                self.members.remove(id);
            }
            About::Regex(regex) => {
                self.regexes.remove(regex);
            }
            About::Target(id) => {
                self.targets.remove(id);
            }
            About::TargetEpoch => self.assignment_epoch = 0,
            About::Current(id) => {
                if let Some(member) = self.members.get_mut(id) {
                    member.current = super::Current::default();
                }
            }
            About::Epoch | About::OldTopics | About::SharePartitions => {}
        }
    }

    /// Puts what follows from the records in order, once all have been read.
    fn restore(&mut self, now_ms: i64) {
        self.empty_since_ms = now_ms;
        self.targets.retain(|id, _| self.members.contains_key(id));
        let ids: Vec<Arc<str>> = self.members.keys().cloned().collect();
        self.static_members = self
            .members
            .iter()
            .filter_map(|(id, member)| Some((member.info.instance_id.clone()?, id.clone())))
            .collect();
        self.holders.clear();
        ids.iter().for_each(|id| self.take_holds(id));
        self.epoch = self.epoch.max(self.assignment_epoch);
    }
}

impl Turn<'_> {
    pub(in crate::coordinator::group) fn modern_loaded(&mut self) {
        let now_ms = self.now_ms;
        let Some(modern) = self.group.modern.as_deref_mut() else { return };
        modern.restore(now_ms);
        let ids: Vec<Arc<str>> = modern.member_ids().cloned().collect();
        for id in ids {
            self.extend_modern_session(&id);
            let Some(member) = self.modern_member(&id) else { continue };
            if member.current.state == MemberState::Unrevoked {
                let due_ms = now_ms.saturating_add(i64::from(member.info.rebalance_timeout_ms));
                self.timers.set(TimerKey::Revocation(self.group.id.clone(), id.clone()), due_ms);
            }
        }
    }
}
