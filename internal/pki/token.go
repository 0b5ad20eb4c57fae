package pki

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"log/slog"
	"strings"
)

const (
	tokenPrefix   = "pswt1"
	tokenIDLen    = 5  // bytes: 8 characters
	tokenSecret   = 16 // bytes
	tokenCheckLen = 4  // bytes of checksum behind the secret
)

// ErrMistyped says that a token is incomplete or has a character changed: it was copied wrongly,
// which is another thing than a wrong token.
var ErrMistyped = errors.New("the join token is mistyped: its checksum does not match; copy the whole token again")

// Token lets a machine join the cluster: it names the CA to believe and carries a secret.
type Token struct {
	CA     [sha256.Size]byte // CAHash of the cluster
	ID     string
	Secret [tokenSecret]byte
}

// NewToken makes a token with a random identifier and secret for the cluster whose CA has caHash.
func NewToken(caHash [sha256.Size]byte) Token {
	var id [tokenIDLen]byte
	t := Token{CA: caHash}
	_, _ = rand.Read(id[:]) // never fails
	_, _ = rand.Read(t.Secret[:])
	t.ID = lower32().EncodeToString(id[:])
	return t
}

// ParseToken reads what String wrote; spaces around it and capital letters do not matter. Every
// other difference is ErrMistyped.
func ParseToken(s string) (Token, error) {
	s = strings.ToLower(strings.TrimSpace(s))
	parts := strings.Split(s, ".")
	if len(parts) != 4 || parts[0] != tokenPrefix {
		return Token{}, ErrMistyped
	}
	hash, err1 := lower32().DecodeString(parts[1])
	id, err2 := lower32().DecodeString(parts[2])
	secret, err3 := lower32().DecodeString(parts[3])
	if err := errors.Join(err1, err2, err3); err != nil || len(hash) != sha256.Size || len(id) != tokenIDLen || len(secret) != tokenSecret+tokenCheckLen {
		return Token{}, ErrMistyped
	}
	t := Token{CA: [sha256.Size]byte(hash), ID: parts[2], Secret: [tokenSecret]byte(secret)}
	if t.String() != s { // the checksum, and unused bits at the end of each part
		return Token{}, ErrMistyped
	}
	return t, nil
}

// String is the token as people copy it: pswt1.<ca hash>.<id>.<secret and checksum>.
func (t Token) String() string {
	sum := sha256.Sum256([]byte(tokenPrefix + string(t.CA[:]) + t.ID + string(t.Secret[:])))
	secret := append(append([]byte(nil), t.Secret[:]...), sum[:tokenCheckLen]...)
	return strings.Join([]string{tokenPrefix, lower32().EncodeToString(t.CA[:]), t.ID, lower32().EncodeToString(secret)}, ".")
}

// Hash is what the cluster stores of the secret. The secret is random and long, so one round is
// enough to keep it secret.
func (t Token) Hash() []byte {
	sum := sha256.Sum256([]byte("podman-swarm join token\x00" + t.ID + "\x00" + string(t.Secret[:])))
	return sum[:]
}

// LogValue keeps the secret out of logs.
func (t Token) LogValue() slog.Value { return slog.StringValue(t.ID) }

func lower32() *base32.Encoding {
	return base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
}
