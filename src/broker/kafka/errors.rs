//! What librdkafka's errors mean for whom.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::broker::{AbortCause, BrokerError};

/// An error in words, without the names of Rust types.
pub(super) fn text(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, description, key, value) => format!("property {key}={value}: {description}"),
        KafkaError::ClientCreation(description) => description.clone(),
        KafkaError::Transaction(error) => format!("{} ({})", error.string(), error.name()),
        _ => code_of(error).map_or_else(|| error.to_string(), |code| code.to_string()),
    }
}

/// The code of an error. The crate has none for an operation of the admin client, whose errors are codes all the same.
fn code_of(error: &KafkaError) -> Option<Code> {
    match error {
        KafkaError::AdminOp(code) => Some(*code),
        _ => error.rdkafka_error_code(),
    }
}

/// What a failed step of a transaction asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reaction {
    /// Ask again.
    Retry,
    /// Abort the transaction, for this cause.
    Abort(AbortCause),
    /// Somebody else has the transactional id.
    Fenced,
    /// It will never work.
    Fatal,
    /// Nobody knows: a new producer.
    Unknown,
}

/// The reaction to an error before the end of the transaction was asked for.
pub(super) fn reaction(error: &KafkaError) -> Reaction {
    let Some(code) = error.rdkafka_error_code() else {
        return Reaction::Unknown;
    };
    let (fatal, retriable) = match error {
        KafkaError::Transaction(error) => (error.is_fatal(), error.is_retriable()),
        _ => (false, false),
    };
    match by_code(code) {
        // A fencing error is fatal even when it arrives marked abortable; and the group's refusals ask for a rejoin even when marked fatal.
        Some(reaction) => reaction,
        None if fatal => Reaction::Unknown,
        None if retriable => Reaction::Retry,
        None if passes(code) => Reaction::Abort(AbortCause::Unavailable),
        None => Reaction::Abort(AbortCause::Refused),
    }
}

fn by_code(code: Code) -> Option<Reaction> {
    Some(match code {
        Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch => Reaction::Fenced,
        Code::IllegalGeneration
        | Code::UnknownMemberId
        | Code::FencedInstanceId
        | Code::RebalanceInProgress
        | Code::StaleMemberEpoch
        | Code::FencedMemberEpoch => Reaction::Abort(AbortCause::Rejoin),
        Code::TransactionalIdAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::UnsupportedVersion
        | Code::UnsupportedFeature
        | Code::Authentication
        | Code::SaslAuthenticationFailed => Reaction::Fatal,
        Code::InvalidTransactionTimeout => Reaction::Fatal,
        Code::InvalidTransactionalState | Code::InvalidProducerIdMapping | Code::UnknownProducerId => Reaction::Unknown,
        Code::MessageTimedOut | Code::OperationTimedOut | Code::RequestTimedOut => Reaction::Abort(AbortCause::TimedOut),
        Code::AllBrokersDown | Code::BrokerTransportFailure | Code::NotEnoughReplicas | Code::NotEnoughReplicasAfterAppend => {
            Reaction::Abort(AbortCause::Unavailable)
        }
        _ => return None,
    })
}

/// Whether it passes: Kafka's protocol calls the code retriable, or librdkafka knows no broker to ask for the moment.
///
/// An unknown topic or partition is among them, as for Kafka's own clients: a broker that has just started, and librdkafka when no metadata came
/// in time, know of none. Whether a topic is there at all is asked by its name, at the start.
fn passes(code: Code) -> bool {
    matches!(
        code,
        Code::AllBrokersDown
            | Code::BrokerDestroy
            | Code::BrokerTransportFailure
            | Code::DestroyBroker
            | Code::OperationTimedOut
            | Code::Resolve
            | Code::TimedOutQueue
            | Code::UnknownPartition
            | Code::UnknownTopic
            | Code::WaitCache
            | Code::WaitingForCoordinator
            | Code::BrokerNotAvailable
            | Code::ConcurrentTransactions
            | Code::CoordinatorLoadInProgress
            | Code::CoordinatorNotAvailable
            | Code::FencedLeaderEpoch
            | Code::FetchSessionIdNotFound
            | Code::InvalidFetchSessionEpoch
            | Code::InvalidMessage
            | Code::KafkaStorageError
            | Code::LeaderNotAvailable
            | Code::ListenerNotFound
            | Code::NetworkException
            | Code::NotController
            | Code::NotCoordinator
            | Code::NotEnoughReplicas
            | Code::NotEnoughReplicasAfterAppend
            | Code::NotLeaderForPartition
            | Code::OffsetNotAvailable
            | Code::PreferredLeaderNotAvailable
            | Code::RebootstrapRequired
            | Code::ReplicaNotAvailable
            | Code::RequestTimedOut
            | Code::ThrottlingQuotaExceeded
            | Code::UnknownLeaderEpoch
            | Code::UnknownTopicId
            | Code::UnknownTopicOrPartition
            | Code::UnstableOffsetCommit
    )
}

/// Whether somebody has to change a setting or a permission first.
fn is_refusal(code: Code) -> bool {
    matches!(
        code,
        Code::Authentication
            | Code::Fatal
            | Code::InvalidArgument
            | Code::UnsupportedFeature
            | Code::ClusterAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::InvalidGroupId
            | Code::InvalidTopic
            | Code::PolicyViolation
            | Code::SaslAuthenticationFailed
            | Code::SecurityDisabled
            | Code::TopicAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
            | Code::UnsupportedSASLMechanism
            | Code::UnsupportedVersion
    )
}

/// An error of a request by a person or at the start, who want to know at once: worth asking again only where it is known to pass.
pub(super) fn broker_error(error: &KafkaError) -> BrokerError {
    match code_of(error) {
        Some(code) if passes(code) => BrokerError::Unavailable(text(error)),
        _ => BrokerError::Refused(text(error)),
    }
}

/// An error of a running worker's question: worth asking again unless it is known not to pass.
pub(super) fn question_error(error: &KafkaError) -> BrokerError {
    match code_of(error) {
        Some(code) if is_refusal(code) => BrokerError::Refused(text(error)),
        _ => BrokerError::Unavailable(text(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_of_error_has_its_reaction() {
        let of = |code| reaction(&KafkaError::MessageProduction(code));
        assert_eq!(of(Code::ProducerFenced), Reaction::Fenced);
        assert_eq!(of(Code::InvalidProducerEpoch), Reaction::Fenced);
        assert_eq!(of(Code::IllegalGeneration), Reaction::Abort(AbortCause::Rejoin));
        assert_eq!(of(Code::RebalanceInProgress), Reaction::Abort(AbortCause::Rejoin));
        assert_eq!(of(Code::StaleMemberEpoch), Reaction::Abort(AbortCause::Rejoin));
        assert_eq!(of(Code::MessageSizeTooLarge), Reaction::Abort(AbortCause::Refused));
        assert_eq!(of(Code::NotEnoughReplicas), Reaction::Abort(AbortCause::Unavailable));
        assert_eq!(of(Code::DestroyBroker), Reaction::Abort(AbortCause::Unavailable));
        assert_eq!(of(Code::MessageTimedOut), Reaction::Abort(AbortCause::TimedOut));
        assert_eq!(of(Code::TransactionalIdAuthorizationFailed), Reaction::Fatal);
        assert_eq!(of(Code::InvalidTransactionalState), Reaction::Unknown);
        assert_eq!(reaction(&KafkaError::Canceled), Reaction::Unknown);
    }

    #[test]
    fn what_passes_is_worth_waiting_for_and_a_refusal_is_not() {
        let unavailable = |error: BrokerError| matches!(error, BrokerError::Unavailable(_));
        let of = |code| KafkaError::MetadataFetch(code);
        for code in [
            Code::BrokerTransportFailure,
            Code::DestroyBroker,
            Code::UnknownPartition,
            Code::OffsetNotAvailable,
        ] {
            assert!(unavailable(broker_error(&of(code))) && unavailable(question_error(&of(code))), "{code}");
        }
        for code in [Code::TopicAuthorizationFailed, Code::UnsupportedVersion] {
            assert!(!unavailable(broker_error(&of(code))) && !unavailable(question_error(&of(code))), "{code}");
        }
    }

    #[test]
    fn question_of_the_admin_client_that_times_out_is_worth_asking_again() {
        let error = KafkaError::AdminOp(Code::OperationTimedOut);
        assert!(matches!(broker_error(&error), BrokerError::Unavailable(_)));
        assert!(matches!(question_error(&error), BrokerError::Unavailable(_)));
        assert_eq!(text(&error), Code::OperationTimedOut.to_string());
    }

    #[test]
    fn an_error_that_nobody_foresaw_ends_a_command_and_not_a_worker() {
        let error = KafkaError::MetadataFetch(Code::Unknown);
        assert!(matches!(broker_error(&error), BrokerError::Refused(_)));
        assert!(matches!(question_error(&error), BrokerError::Unavailable(_)));
    }
}
