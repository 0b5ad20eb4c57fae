package apiserver

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/apiserver/pkg/audit/policy"
)

// checkAudit refuses audit settings that would record nothing, in one line each.
func checkAudit(policyFile, logPath string) error {
	switch {
	case policyFile == "" && logPath == "":
		return nil
	case policyFile == "":
		return errors.New("audit log " + logPath + ": no audit policy file is set, so nothing would be recorded")
	case logPath == "":
		return errors.New("audit policy " + policyFile + ": no audit log path is set, so nothing would be recorded")
	}
	if _, err := policy.LoadPolicyFromFile(policyFile); err != nil {
		return fmt.Errorf("audit policy %s: %s", policyFile, oneLine(err))
	}
	if logPath == "-" {
		return nil
	}
	if info, err := os.Stat(filepath.Dir(logPath)); err != nil || !info.IsDir() {
		return fmt.Errorf("audit log %s: its directory does not exist", logPath)
	}
	return nil
}

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }
