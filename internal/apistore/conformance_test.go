package apistore

import (
	"context"
	"errors"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"k8s.io/apiserver/pkg/features"
	"k8s.io/apiserver/pkg/storage"
	storagetesting "k8s.io/apiserver/pkg/storage/testing"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	featuregatetesting "k8s.io/component-base/featuregate/testing"
)

// exceptions names the upstream tests that are not run here, each with its reason. See
// TestEveryUpstreamTestIsRun.
var exceptions = map[string]string{}

// plain are the upstream tests that need nothing but a store.
var plain = []func(context.Context, *testing.T, storage.Interface){
	storagetesting.RunTestCreateWithTTL,
	storagetesting.RunTestCreateWithKeyExist,
	storagetesting.RunTestGet,
	storagetesting.RunTestUnconditionalDelete,
	storagetesting.RunTestConditionalDelete,
	storagetesting.RunTestDeleteWithSuggestion,
	storagetesting.RunTestDeleteWithSuggestionAndConflict,
	storagetesting.RunTestDeleteWithConflict,
	storagetesting.RunTestDeleteWithSuggestionOfDeletedObject,
	storagetesting.RunTestValidateDeletionWithSuggestion,
	storagetesting.RunTestValidateDeletionWithOnlySuggestionValid,
	storagetesting.RunTestPreconditionalDeleteWithSuggestion,
	storagetesting.RunTestPreconditionalDeleteWithOnlySuggestionPass,
	storagetesting.RunTestGetListRecursivePrefix,
	storagetesting.RunTestGuaranteedUpdateWithTTL,
	storagetesting.RunTestGuaranteedUpdateWithConflict,
	storagetesting.RunTestGuaranteedUpdateWithSuggestionAndConflict,
	storagetesting.RunTestListPaging,
	storagetesting.RunTestNamespaceScopedList,
	storagetesting.RunTestKeySchema,
	storagetesting.RunTestWatch,
	storagetesting.RunTestDeleteTriggerWatch,
	storagetesting.RunTestWatchFromNonZero,
	storagetesting.RunTestDelayedWatchDelivery,
	storagetesting.RunTestWatchContextCancel,
	storagetesting.RunTestWatcherTimeout,
	storagetesting.RunTestWatchDeleteEventObjectHaveLatestRV,
	storagetesting.RunTestWatchInitializationSignal,
	storagetesting.RunTestClusterScopedWatch,
	storagetesting.RunTestNamespaceScopedWatch,
	storagetesting.RunTestOptionalWatchBookmarksWithCorrectResourceVersion,
	storagetesting.RunSendInitialEventsBackwardCompatibility,
	storagetesting.RunWatchSemantics,
	storagetesting.RunWatchSemanticInitialEventsExtended,
	storagetesting.RunWatchListMatchSingle,
}

// hooked are the upstream tests that want a hand inside the store.
var hooked = map[string]func(context.Context, *testing.T, *fixture){
	"Create": func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestCreate(ctx, t, f, f.checkStored)
	},
	"List": func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestList(ctx, t, f, f.compact, false, nil)
	},
	"ConsistentList": func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestConsistentList(ctx, t, f, f.increaseRV, false, true, false)
	},
	"GetListNonRecursive": func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestGetListNonRecursive(ctx, t, f.increaseRV, f)
	},
	"ListContinuation": func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestListContinuation(ctx, t, f, f.checkReads)
	},
	"ListPaginationRareObject": func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestListPaginationRareObject(ctx, t, f, f.checkReads)
	},
	"ListContinuationWithFilter": func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestListContinuationWithFilter(ctx, t, f, f.checkReads)
	},
	"ListInconsistentContinuation": func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestListInconsistentContinuation(ctx, t, f, f.compact)
	},
	"ListResourceVersionMatch": func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestListResourceVersionMatch(ctx, t, f)
	},
	"GuaranteedUpdate": func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestGuaranteedUpdate(ctx, t, f, f.checkStored)
	},
	"GuaranteedUpdateChecksStoredData": func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestGuaranteedUpdateChecksStoredData(ctx, t, f)
	},
	"TransformationFailure": func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestTransformationFailure(ctx, t, f)
	},
	"CompactRevision": func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestCompactRevision(ctx, t, f, f.increaseRV, f.compact)
	},
	"WatchFromZero": func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestWatchFromZero(ctx, t, f, f.compact)
	},
	"WatchError": func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestWatchError(ctx, t, f)
	},
	"WatchErrorIsBlockingFurtherEvents": func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunWatchErrorIsBlockingFurtherEvents(ctx, t, f)
	},
	"ProgressNotify": func(ctx context.Context, t *testing.T, f *fixture) {
		f.bookmarkEvery = 100 * time.Millisecond
		storagetesting.RunOptionalTestProgressNotify(ctx, t, f, f.increaseRV)
	},
	"WatchDispatchBookmarkEvents": func(ctx context.Context, t *testing.T, f *fixture) {
		f.bookmarkEvery = 100 * time.Millisecond
		storagetesting.RunTestWatchDispatchBookmarkEvents(ctx, t, f, true)
	},
	"GetListWithErrorAggregation": func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestGetListWithErrorAggregation(ctx, t, f.reporting(), errBitsFlipped)
	},
	"GetListWithoutErrorAggregation": func(ctx context.Context, t *testing.T, f *fixture) {
		featuregatetesting.SetFeatureGateDuringTest(t, utilfeature.DefaultFeatureGate, features.AllowUnsafeMalformedObjectDeletion, false)
		storagetesting.RunTestGetListWithoutErrorAggregation(ctx, t, f, errBitsFlipped)
	},
	"WatchWithUnsafeDelete": func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestWatchWithUnsafeDelete(ctx, t, f, errBitsFlipped)
	},
	"DeleteWithSuggestionAndMissingExpectedTransformOrDecodeError": func(ctx context.Context, t *testing.T, f *fixture) {
		storagetesting.RunTestDeleteWithSuggestionAndMissingExpectedTransformOrDecodeError(ctx, t, f)
	},
}

var errBitsFlipped = &corruptError{err: errors.New("bits flipped"), what: untransformable}

func TestUpstreamConformance(t *testing.T) {
	for _, run := range plain {
		name := runtime.FuncForPC(reflect.ValueOf(run).Pointer()).Name()
		name = name[strings.LastIndex(name, ".Run")+len(".Run"):]
		t.Run(strings.TrimPrefix(name, "Test"), func(t *testing.T) {
			run(t.Context(), t, newFixture(t))
		})
	}
	for name, run := range hooked {
		t.Run(name, func(t *testing.T) { run(t.Context(), t, newFixture(t)) })
	}
	t.Run("Stats", func(t *testing.T) {
		for _, sizes := range []bool{false, true} {
			f := newFixture(t)
			if sizes {
				keys := func(context.Context) ([]string, error) { return nil, nil }
				if err := f.EnableResourceSizeEstimation(keys); err != nil {
					t.Fatal(err)
				}
			}
			storagetesting.RunTestStats(t.Context(), t, f, f.coder.codec, f.coder.transformer, sizes)
		}
	})
}

// The unsafe deletion of unreadable objects, with both ways to be unreadable.
func TestUpstreamUnsafeDeletion(t *testing.T) {
	breakers := map[string]func(*fixture) func(bool){
		"codec":       (*fixture).breakableCodec,
		"transformer": (*fixture).breakableTransformer,
	}
	for name, breaker := range breakers {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			storagetesting.RunTestDeleteExpectedTransformOrDecodeError(t.Context(), t, f, breaker(f))
		})
		t.Run(name+"/conflict", func(t *testing.T) {
			f := newFixture(t)
			storagetesting.RunTestDeleteWithConflictAndMissingExpectedTransformOrDecodeError(t.Context(), t, f, breaker(f))
		})
	}
}
