package openapi

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// TestPieces shows that a document cut into pieces and joined with additions is the document
// with the additions.
func TestPieces(t *testing.T) {
	object := rapid.MapOfN(rapid.StringMatching(`[a-z/{}"\\]{1,8}`), rapid.Int(), 1, 5)
	rapid.Check(t, func(t *rapid.T) {
		doc := map[string]any{"swagger": "2.0", "info": map[string]any{"title": "}},{"}}
		for _, k := range pieceKeys() {
			doc[k] = object.Draw(t, k)
		}
		data, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		pieces, err := jsonPieces(data)
		if err != nil {
			t.Fatal(err)
		}
		var joined bytes.Buffer
		for i, k := range pieceKeys() {
			extra := map[string]int{}
			if rapid.Bool().Draw(t, "add to "+k) {
				extra["NEW"] = i
				doc[k].(map[string]int)["NEW"] = i
			}
			members, err := jsonMembers(extra)
			if err != nil {
				t.Fatal(err)
			}
			joined.Write(pieces[i])
			joined.Write(members)
		}
		joined.Write(pieces[len(pieces)-1])
		var got, want any
		if err := json.Unmarshal(joined.Bytes(), &got); err != nil {
			t.Fatalf("%v in %s", err, joined.Bytes())
		}
		whole, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(whole, &want); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestPiecesRefuses(t *testing.T) {
	for _, doc := range []string{``, `[]`, `{}`, `{"paths":{},"definitions":{"a":1},"parameters":{"a":1}}`, `{"paths":{"a":1},"definitions":[1],"parameters":{"a":1}}`} {
		if _, err := jsonPieces([]byte(doc)); err == nil {
			t.Errorf("cut %q", doc)
		}
	}
}
