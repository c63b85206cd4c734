"""Acting outside torch: fast engines and exports. Loaders reach lower layers as callables that they are given."""
