// Package openapi is the document that tells what the gateway's calls are, and a page to try them.
//
// protoc-gen-openapiv3 makes a document of the contract as grpc-gateway would serve it by default. What package
// codec does to every message follows by rule, what package rest does by hand stands in amendments.json, an
// RFC 7396 merge patch.
package openapi

import (
	_ "embed"
	"encoding/json"
	"net/http"
	"regexp"
	"strings"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/swaggest/swgui/v5emb"
)

// Where the document and the page are served.
const (
	DocumentPath = "/openapi.json"
	PagePath     = "/docs/"
)

//go:embed headrace/v1/pipeline_service.openapi.json
var generated []byte

//go:embed amendments.json
var amendments []byte

var hump = regexp.MustCompile(`([a-z0-9])([A-Z])`)

// Page is Swagger UI, whose assets are embedded.
func Page() http.Handler { return v5emb.New("Headrace", DocumentPath, PagePath) }

// Document answers with the document.
func Document() (http.Handler, error) {
	text, err := Make()
	if err != nil {
		return nil, err
	}
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(text) // Whoever is gone does not read it.
	}), nil
}

// Make makes the document.
func Make() ([]byte, error) {
	var document map[string]any
	if err := json.Unmarshal(generated, &document); err != nil {
		return nil, err
	}
	followCodec(document)
	for _, path := range document["paths"].(map[string]any) {
		for _, operation := range path.(map[string]any) {
			mayFail(operation.(map[string]any))
		}
	}
	text, err := json.Marshal(document)
	if err != nil {
		return nil, err
	}
	return jsonpatch.MergePatch(text, amendments)
}

// mayFail adds the answer that every call has for errors.
func mayFail(operation map[string]any) {
	operation["responses"].(map[string]any)["default"] = map[string]any{"$ref": "#/components/responses/Error"}
}

// followCodec gives fields their names in the contract, and makes integers of strings of 64 bits.
func followCodec(node any) {
	switch node := node.(type) {
	case []any:
		for _, child := range node {
			followCodec(child)
		}
	case map[string]any:
		if properties, ok := node["properties"].(map[string]any); ok {
			node["properties"] = renamed(properties)
		}
		if required, ok := node["required"].([]any); ok {
			for i, name := range required {
				required[i] = snake(name.(string))
			}
		}
		if name, ok := node["name"].(string); ok && node["in"] != nil {
			node["name"] = snake(name)
		}
		if format, ok := node["format"].(string); ok && node["type"] == "string" && strings.HasSuffix(format, "int64") {
			// Beyond 2^53 they are strings of digits.
			node["type"] = []any{"integer", "string"}
		}
		for _, child := range node {
			followCodec(child)
		}
	}
}

func renamed(properties map[string]any) map[string]any {
	named := make(map[string]any, len(properties))
	for name, schema := range properties {
		named[snake(name)] = schema
	}
	return named
}

func snake(name string) string { return strings.ToLower(hump.ReplaceAllString(name, "${1}_${2}")) }
