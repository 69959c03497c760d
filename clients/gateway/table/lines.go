package table

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"

	"headrace.internal/clients/gateway/codec"
)

// AppendLines appends the rows of an Arrow stream as JSON objects, one a line.
func AppendLines(text, stream []byte) ([]byte, error) {
	return appendRows(text, stream, "\n")
}

// AppendObject appends a JSON object of a table's name and rows.
func AppendObject(text []byte, name string, stream []byte) ([]byte, error) {
	text = append(codec.AppendText(append(text, `{"table":`...), name), `,"rows":[`...)
	begin := len(text)
	text, err := appendRows(text, stream, ",")
	if len(text) > begin {
		text = text[:len(text)-1]
	}
	return append(text, "]}"...), err
}

// appendRows appends the rows of an Arrow stream, with what follows each.
func appendRows(text, stream []byte, delimiter string) ([]byte, error) {
	reader, err := ipc.NewReader(bytes.NewReader(stream))
	if err != nil {
		return nil, err
	}
	defer reader.Release()
	for reader.Next() {
		batch := reader.RecordBatch()
		for row := range int(batch.NumRows()) {
			if text, err = appendRow(text, batch, row); err != nil {
				return nil, err
			}
			text = append(text, delimiter...)
		}
	}
	return text, reader.Err()
}

func appendRow(text []byte, batch arrow.RecordBatch, row int) ([]byte, error) {
	text = append(text, '{')
	for i := range int(batch.NumCols()) {
		if i > 0 {
			text = append(text, ',')
		}
		text = append(codec.AppendText(text, batch.ColumnName(i)), ':')
		var err error
		if text, err = appendCell(text, batch.Column(i), row); err != nil {
			return nil, err
		}
	}
	return append(text, '}'), nil
}

// appendCell appends a value by the rules of the codec, times as RFC 3339.
func appendCell(text []byte, column arrow.Array, row int) ([]byte, error) {
	if column.IsNull(row) {
		return append(text, "null"...), nil
	}
	switch column := column.(type) {
	case *array.String:
		return codec.AppendText(text, column.Value(row)), nil
	case *array.LargeString:
		return codec.AppendText(text, column.Value(row)), nil
	case *array.Int64:
		return codec.AppendInt(text, column.Value(row)), nil
	case *array.Uint64:
		return codec.AppendUint(text, column.Value(row)), nil
	case *array.Int32:
		return codec.AppendInt(text, int64(column.Value(row))), nil
	case *array.Float64:
		return codec.AppendFloat(text, column.Value(row), 64), nil
	case *array.Timestamp:
		unit := column.DataType().(*arrow.TimestampType).Unit
		return column.Value(row).ToTime(unit).AppendFormat(append(text, '"'), time.RFC3339Nano+`"`), nil
	case array.ListLike:
		return appendList(text, column, row)
	default:
		value, err := json.Marshal(column.GetOneForMarshal(row))
		if err != nil {
			return nil, fmt.Errorf("a value of type %s: %w", column.DataType(), err)
		}
		return append(text, value...), nil
	}
}

func appendList(text []byte, column array.ListLike, row int) ([]byte, error) {
	first, end := column.ValueOffsets(row)
	text = append(text, '[')
	for i := first; i < end; i++ {
		if i > first {
			text = append(text, ',')
		}
		var err error
		if text, err = appendCell(text, column.ListValues(), int(i)); err != nil {
			return nil, err
		}
	}
	return append(text, ']'), nil
}
