// Package overwrite says what the records of the conflict journal are to a person: which object, whose
// work, and whether any was lost.
package overwrite
