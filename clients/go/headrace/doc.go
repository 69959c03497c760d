// Package headrace is what the generated client of Headrace lacks: [Upload], which streams a file and goes on by
// itself when the connection or the server breaks, [Error], the typed error of a failed call, and [Connect].
//
// Everything else is called on the generated client, headracev1.PipelineServiceClient.
package headrace
