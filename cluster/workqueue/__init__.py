"""Work queues with client-go's semantics: de-duplicating, delayed, rate-limited, by priority, fair, observable."""
