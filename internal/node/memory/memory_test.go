package memory

import "testing"

func TestDropText(t *testing.T) {
	if err := dropText(); err != nil {
		t.Error(err)
	}
	for line, want := range map[string]bool{
		"00400000-01000000 r-xp 00000000 fe:00 1 /bin/x": true,
		"01000000-02000000 rw-p 00000000 fe:00 1 /bin/x": false,
		"00400000-01000000 r-xp 00000000 fe:00 1 /bin/y": false,
		"nonsense": false,
	} {
		if _, _, ok := readOnlyRange(line, "/bin/x"); ok != want {
			t.Errorf("readOnlyRange(%q) = %v", line, ok)
		}
	}
}
