/**
 * What the generated client of Headrace, in {@code headrace.v1}, lacks: {@link headrace.client.Uploader}, which streams a
 * file and goes on by itself when the connection or the server breaks, and {@link headrace.client.HeadraceException}, the
 * typed error of a failed call.
 */
package headrace.client;
