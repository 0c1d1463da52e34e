"""What wrappers are timed on: a language model, digits, layers for Kronecker factors, a recurrent net; and what their peers do there."""
