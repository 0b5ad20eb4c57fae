package hlc

// Stamp is a hybrid logical timestamp: 48 bits of Unix milliseconds, 16 bits of counter.
// Stamps of one clock strictly increase; a clock that has seen another's stamp is ahead of it.
// Source: Kulkarni et al., "Logical Physical Clocks", 2014.
type Stamp uint64
