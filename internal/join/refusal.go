package join

import (
	"fmt"
	"strings"
	"unicode"
)

// Reason says what kind of refusal it is, for programs.
type Reason string

// The reasons for which a newcomer is refused.
const (
	Mistyped     Reason = "Mistyped"
	WrongToken   Reason = "WrongToken"
	Expired      Reason = "Expired"
	UsedUp       Reason = "UsedUp"
	Revoked      Reason = "Revoked"
	OtherCluster Reason = "OtherCluster"
	Clock        Reason = "Clock"
	NameTaken    Reason = "NameTaken"
	Release      Reason = "Release"
	BadRequest   Reason = "BadRequest"
	NoRange      Reason = "NoRange"
	TooMany      Reason = "TooMany"
	TooLate      Reason = "TooLate"
	Unavailable  Reason = "Unavailable"
)

// Refusal is why a newcomer is not admitted: one line that says what, why and what to do next.
type Refusal struct { //nolint:errname // it is an answer first: what the protocol carries
	Reason Reason `json:"reason"`
	Text   string `json:"text"`
}

func (r *Refusal) Error() string { return r.Text }

// elsewhere tells whether another node may answer differently.
func (r *Refusal) elsewhere() bool { return r.Reason == Unavailable || r.Reason == TooLate }

func refuse(reason Reason, format string, args ...any) *Refusal {
	return &Refusal{Reason: reason, Text: oneLine(fmt.Sprintf(format, args...))}
}

const (
	maxText    = 500
	makeToken  = "make a new token on any node"
	tokenTyped = "the join token is mistyped: its checksum does not match; copy the whole token again"
)

// oneLine makes text from elsewhere fit to be shown.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s)
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "") + "..."
	}
	return strings.TrimSpace(s)
}
