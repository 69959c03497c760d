package openapi

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	headracev1 "headrace.internal/clients/go/headrace/v1"
)

func TestEveryReferenceLeadsSomewhere(t *testing.T) {
	text, err := Make()
	if err != nil {
		t.Fatal(err)
	}
	var document struct {
		Paths      map[string]map[string]struct{ OperationID string }
		Components map[string]map[string]any
	}
	if err := json.Unmarshal(text, &document); err != nil {
		t.Fatal(err)
	}
	for _, reference := range regexp.MustCompile(`"\$ref":"#/components/(\w+)/([^"]+)"`).FindAllStringSubmatch(string(text), -1) {
		if document.Components[reference[1]][reference[2]] == nil {
			t.Errorf("there is no %s", reference[0])
		}
	}
	if strings.Contains(string(text), "google.rpc.Status") {
		t.Error("google.rpc.Status is not what callers see of an error")
	}
}

func TestAmendmentsAreOfCallsThatThereAre(t *testing.T) {
	var before, amended struct{ Paths map[string]map[string]any }
	if err := json.Unmarshal(generated, &before); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(amendments, &amended); err != nil {
		t.Fatal(err)
	}
	for path, operations := range amended.Paths {
		for method := range operations {
			if before.Paths[path][method] == nil && path != "/internal/data/upload-csv" {
				t.Errorf("nothing was generated for %s %s", method, path)
			}
		}
	}
	for path := range before.Paths {
		if amended.Paths[path] == nil {
			t.Errorf("%s has no tag", path)
		}
	}
}

func TestNamesOfFieldsAreThoseOfTheContract(t *testing.T) {
	file := headracev1.File_headrace_v1_pipeline_service_proto
	for i := range file.Imports().Len() {
		messages := file.Imports().Get(i).Messages()
		for j := range messages.Len() {
			checkNames(t, messages.Get(j).Fields())
		}
	}
}

func checkNames(t *testing.T, fields protoreflect.FieldDescriptors) {
	for i := range fields.Len() {
		if field := fields.Get(i); snake(field.JSONName()) != string(field.Name()) {
			t.Errorf("%s becomes %s", field.FullName(), snake(field.JSONName()))
		}
	}
}
